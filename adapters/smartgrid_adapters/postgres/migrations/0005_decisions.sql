-- Exchanges and resets of meters by their id: written with their event, like the reading register with a reading.

SET LOCAL ROLE smartgrid_owner;

CREATE TABLE meter_decisions (
    event_id uuid PRIMARY KEY,
    meter_id text COLLATE "C" NOT NULL,
    position bigint NOT NULL
);
GRANT SELECT ON meter_decisions TO smartgrid_reader;
