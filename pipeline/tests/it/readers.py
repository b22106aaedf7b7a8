"""Opens a Delta table with three independent readers and prints what each sees, as one JSON object.

usage: readers.py TABLE
"""
import json
import sys

import deltalake
import duckdb
import polars

table = sys.argv[1]
delta = deltalake.DeltaTable(table)
fields = json.loads(delta.schema().to_json())["fields"]
seen = {
    "types": {f["name"]: f["type"] if isinstance(f["type"], str) else f["type"]["type"] for f in fields},
    "units": {f["name"]: f["metadata"]["unit"] for f in fields if "unit" in f.get("metadata", {})},
}


def plain(value):
    return value.isoformat() if hasattr(value, "isoformat") else value


def rows(records):
    keep = lambda r: {k: plain(v) for k, v in r.items() if k != "attributes"}
    return sorted((keep(r) for r in records), key=lambda r: (r["_partition"], r["_offset"], r["_index"], r["_row"]))


seen["deltalake"] = rows(delta.to_pyarrow_table().to_pylist())
seen["polars"] = rows(polars.scan_delta(table).collect().to_dicts())
files = delta.file_uris()
connection = duckdb.connect()
connection.execute("set timezone = 'UTC'")
found = connection.execute("select * exclude (date) from read_parquet($1, union_by_name = true)", [files])
names = [c[0] for c in found.description]
seen["duckdb"] = rows(dict(zip(names, r)) for r in found.fetchall())
for reader in ("deltalake", "polars"):
    for row in seen[reader]:
        row.pop("date", None)
print(json.dumps(seen, default=str))
