"""
The way of the original, for comparison: Flask, a pool of connections, one INSERT and one COMMIT per reading.

Served by Flask's own server (``python -m tests.bench.original PORT``) or by gunicorn (``tests.bench.original:app``).
``DATABASE`` names the database.
"""

import os
import sys
from functools import cache

import psycopg
from flask import Flask, Response, jsonify, request
from psycopg_pool import ConnectionPool

app = Flask(__name__)
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


@cache
def _pool() -> ConnectionPool[psycopg.Connection[tuple[object, ...]]]:
    """Return the pool of this process: no connection is opened for a request."""
    return ConnectionPool(os.environ["DATABASE"], min_size=1, max_size=8, open=True)


@app.post("/api/v1/ingest/sensor")
def ingest() -> tuple[Response, int]:
    body = request.get_json()
    place = body["location"]
    row = (body["sensor_id"], body["sensor_type"], body["value"], place["lat"], place["lon"], body["timestamp"])
    with _pool().connection() as connection:  # commits at its end
        connection.execute(_INSERT, row)
    return jsonify({"status": "success"}), 201


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
