-- Exchanges and resets of meters by their id: written with their event, like the reading register with a reading.
CREATE TABLE meter_decisions (
    event_id uuid PRIMARY KEY,
    meter_id text COLLATE "C" NOT NULL
);
GRANT SELECT ON meter_decisions TO smartgrid_reader;
