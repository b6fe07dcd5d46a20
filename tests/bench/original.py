"""
The way of the original, for comparison: Flask, one connection, one INSERT and one COMMIT per reading.

Served by Flask's own server (``python -m tests.bench.original PORT``) or by gunicorn (``tests.bench.original:app``).
``DATABASE`` names the database.
"""

import os
import sys
import threading

import psycopg
from flask import Flask, Response, jsonify, request

app = Flask(__name__)
_local = threading.local()
_INSERT = """
INSERT INTO original_sensor_data (sensor_id, sensor_type, value, lat, lon, timestamp)
VALUES (%s, %s, %s, %s, %s, %s)
"""
TABLE = """
CREATE TABLE original_sensor_data (
    id bigserial PRIMARY KEY, sensor_id text, sensor_type text, value double precision, lat double precision,
    lon double precision, timestamp timestamptz);
CREATE INDEX ON original_sensor_data (sensor_id, timestamp)
"""


def _connection() -> psycopg.Connection[tuple[object, ...]]:
    found: psycopg.Connection[tuple[object, ...]] | None = getattr(_local, "connection", None)
    if found is None:
        found = _local.connection = psycopg.connect(os.environ["DATABASE"])
    return found


@app.post("/api/v1/ingest/sensor")
def ingest() -> tuple[Response, int]:
    body = request.get_json()
    place = body["location"]
    connection = _connection()
    row = (body["sensor_id"], body["sensor_type"], body["value"], place["lat"], place["lon"], body["timestamp"])
    connection.execute(_INSERT, row)
    connection.commit()
    return jsonify({"status": "success"}), 201


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
