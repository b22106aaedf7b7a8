"""Asks a Delta table what an analyst would, by DuckDB: `queries.py TABLE PASSES ASSET SINCE UNTIL`. Prints one JSON object: for
each question the milliseconds of every pass, its rows and the sum of its values.

The files of the table come from the Delta log (`deltalake`), once: an analyst opens a table, then asks."""
import json
import sys
import time

import deltalake
import duckdb

table, passes, asset, since, until = sys.argv[1], int(sys.argv[2]), *sys.argv[3:]
began = time.perf_counter()
files = deltalake.DeltaTable(table).file_uris()
opened = (time.perf_counter() - began) * 1e3
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
# The names of the folders are read as the column `date`, as the table has it.
connection.execute("create view climate as select * from read_parquet($files, hive_partitioning = true)".replace("$files", repr(files)))
month = f"asset = '{asset}' and occurred_at >= timestamptz '{since}+00' and occurred_at < timestamptz '{until}+00'"
questions = {
    "latest": "select asset, max(occurred_at), arg_max(temperature, occurred_at) from climate group by asset",
    "hourly": "select split_part(organization, '/', 3) as place, date_trunc('hour', occurred_at) as hour, avg(temperature) "
    "from climate group by 1, 2",
    "month": f"select occurred_at, humidity, temperature from climate where {month} order by occurred_at",
}
answers = {"open_ms": opened, "files": len(files)}
for name, sql in questions.items():
    times = []
    for _ in range(passes):
        began = time.perf_counter()
        rows = connection.execute(sql).fetchall()
        times.append((time.perf_counter() - began) * 1e3)
    answers[name] = {"ms": times, "rows": len(rows), "sum": sum(row[2] for row in rows)}
print(json.dumps(answers))
