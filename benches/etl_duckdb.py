#!/usr/bin/env python3
"""The transformation of benches/etl.rs with DuckDB: typed, bad rows to a
reject table, zstd Parquet by country. `pip install duckdb`, then

    benches/etl_duckdb.py /tmp/etl.csv country
"""
import json
import os
import resource
import shutil
import sys
import time

import duckdb

path, by = sys.argv[1], sys.argv[2]
out = f"{path}.duckdb-out"
shutil.rmtree(out, ignore_errors=True)
con = duckdb.connect()
con.execute(f"set threads={os.cpu_count()}")
con.execute(f"set temp_directory='{out}.tmp'")
if len(sys.argv) > 3:
    con.execute(f"set memory_limit='{sys.argv[3]}'")
began = time.time()
con.execute(f"""
    copy (
        select * from read_csv('{path}', header=true, store_rejects=true, columns={{
            'id': 'bigint', 'ts': 'timestamptz', 'day': 'bigint', 'country': 'varchar',
            'store': 'bigint', 'sku': 'varchar', 'quantity': 'bigint',
            'amount': 'decimal(18,2)', 'currency': 'varchar', 'note': 'varchar'}})
        where quantity >= 0 and day between 0 and 366 and id >= 0 and amount >= 0
            and length(sku) between 5 and 20
            and country in ('AU','BR','CA','CH','DE','ES','FR','GB','IN','IT','JP','SE','US')
    ) to '{out}' (format parquet, compression zstd, partition_by ({by}))
""")
wall = time.time() - began
use = resource.getrusage(resource.RUSAGE_SELF)
rejects = con.execute("select count(*) from reject_errors").fetchone()[0]
rows = con.execute(f"select count(*) from '{out}/**/*.parquet'").fetchone()[0]
files = sum(len(names) for _, _, names in os.walk(out))
print(json.dumps({
    "wall_s": round(wall, 2), "cpu_s": round(use.ru_utime + use.ru_stime, 2),
    "peak_rss_mb": use.ru_maxrss // 1024, "rows_out": rows, "reject_errors": rejects, "files": files,
}))
shutil.rmtree(out, ignore_errors=True)
