#!/usr/bin/env python3
"""The tasks of benches/etl.rs with Pointsman, DuckDB and Polars, one after the
other: wall time, CPU time and peak memory of a process each, medians of RUNS.
`pip install duckdb polars`, then

    cargo bench --bench etl --no-run            # prints the path of the program
    benches/etl_compare.py PROGRAM FOLDER [RUNS]

FOLDER has (or gets) `etl.csv` (1 GB, 0.1 % bad rows) and `etl.ndjson` (300 MB).
"""
import json
import os
import shutil
import statistics
import subprocess
import sys
import time

COLUMNS = {
    "id": "bigint", "ts": "timestamptz", "day": "bigint", "country": "varchar", "store": "bigint",
    "sku": "varchar", "quantity": "bigint", "amount": "decimal(18,2)", "currency": "varchar", "note": "varchar",
}
COUNTRIES = ["AU", "BR", "CA", "CH", "DE", "ES", "FR", "GB", "IN", "IT", "JP", "SE", "US"]
VALID = (
    "quantity >= 0 and day between 0 and 366 and id >= 0 and amount >= 0 and length(sku) between 5 and 20 "
    f"and country in ({', '.join(repr(c) for c in COUNTRIES)})"
)
GROUP = "select id, sku, count(*) as n, sum(amount) as total, max(ts) as last from input group by id, sku"


def duckdb_task(task, path, out):
    import duckdb

    con = duckdb.connect()
    con.execute(f"set threads={os.cpu_count()}")
    con.execute(f"set temp_directory='{out}.tmp'")
    if task == "json":
        source = f"read_json('{path}', format='newline_delimited', ignore_errors=true, columns={COLUMNS})"
    else:
        source = f"read_csv('{path}', header=true, store_rejects=true, columns={COLUMNS})"
    if task == "group":
        con.execute("set memory_limit='512MB'")
        con.execute("set preserve_insertion_order=false")
        query = GROUP.replace("input", f"(select * from {source} where {VALID}) as input")
        con.execute(f"copy ({query}) to '{out}' (format parquet, compression zstd)")
        written = out
    else:
        con.execute(
            f"copy (select * from {source} where {VALID}) to '{out}' (format parquet, compression zstd, partition_by (country))"
        )
        written = f"{out}/**/*.parquet"
    return con.execute(f"select count(*) from read_parquet('{written}')").fetchone()[0]


def polars_task(task, path, out):
    import polars as pl

    kinds = {
        "bigint": pl.Int64, "varchar": pl.String, "decimal(18,2)": pl.Decimal(18, 2), "timestamptz": pl.String,
    }
    schema = {name: kinds[kind] for name, kind in COLUMNS.items()}
    if task == "json":
        frame = pl.scan_ndjson(path, schema=schema, ignore_errors=True)
    else:
        frame = pl.scan_csv(path, schema=schema, ignore_errors=True, truncate_ragged_lines=True)
    frame = frame.with_columns(pl.col("ts").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", strict=False, time_zone="UTC"))
    frame = frame.filter(
        (pl.col("quantity") >= 0) & pl.col("day").is_between(0, 366) & (pl.col("id") >= 0) & (pl.col("amount") >= 0)
        & pl.col("sku").str.len_chars().is_between(5, 20) & pl.col("country").is_in(COUNTRIES)
    )
    if task == "group":
        frame = frame.group_by("id", "sku").agg(
            n=pl.len(), total=pl.col("amount").sum(), last=pl.col("ts").max()
        )
        frame.sink_parquet(out, compression="zstd", engine="streaming")
        return pl.scan_parquet(out).select(pl.len()).collect().item()
    os.makedirs(out, exist_ok=True)
    partition = getattr(pl, "PartitionBy", None) or getattr(pl, "PartitionByKey")
    try:
        target = partition(out, key="country")
    except TypeError:
        target = partition(out, by="country")
    frame.sink_parquet(target, compression="zstd", mkdir=True, engine="streaming")
    return pl.scan_parquet(f"{out}/**/*.parquet").select(pl.len()).collect().item()


def measured(command, env=None):
    """Wall and CPU seconds, peak MB and the last line of a process's output."""
    began = time.time()
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env)
    output = child.stdout.read()
    error = child.stderr.read()
    _, status, use = os.wait4(child.pid, 0)
    wall = time.time() - began
    lines = output.decode().strip().splitlines()
    if status != 0 or not lines:
        lines = ["fails: " + (error.decode().strip().splitlines() or ["?"])[-1][:120]]
    return wall, use.ru_utime + use.ru_stime, use.ru_maxrss / 1024, lines[-1]


def main():
    program, folder = sys.argv[1], sys.argv[2]
    runs = int(sys.argv[3]) if len(sys.argv) > 3 else 3
    csv, ndjson = f"{folder}/etl.csv", f"{folder}/etl.ndjson"
    if not os.path.exists(csv):
        subprocess.run([program, "generate", csv, "12750000"], check=True)
    if not os.path.exists(ndjson):
        subprocess.run([program, "generate", ndjson, "1850000"], check=True)
    # What `pointsman run` tells the allocator before it starts (src/cli/run.rs).
    told = {"MIMALLOC_ARENA_EAGER_COMMIT": "0", "MIMALLOC_PURGE_DELAY": "10"}
    ours = {
        "csv": ([program, "run", csv, "country"], {}),
        "json": ([program, "run", ndjson, "country"], {}),
        "group": ([program, "group", csv], {"ETL_MEMORY_MIB": "400"}),
    }
    print(f"load average {os.getloadavg()}, {os.cpu_count()} cores, medians of {runs}")
    print("| task | program | wall s | CPU s | peak MB | rows |\n|---|---|---|---|---|---|")
    for task, path in (("csv", csv), ("json", ndjson), ("group", csv)):
        results = {"Pointsman": [], "DuckDB": [], "Polars": []}
        for _ in range(runs):
            command, env = ours[task]
            wall, cpu, peak, line = measured(command, {**os.environ, **told, **env})
            try:
                line = str(json.loads(line).get("rows_out", line))
            except ValueError:
                pass
            results["Pointsman"].append((wall, cpu, peak, line))
            for name in ("DuckDB", "Polars"):
                out = f"{folder}/etl-{name}"
                results[name].append(measured([sys.executable, __file__, "one", name, task, path, out]))
                for left in (out, f"{out}.tmp"):
                    shutil.rmtree(left, ignore_errors=True)
                    if os.path.isfile(left):
                        os.remove(left)
        for name, all_runs in results.items():
            middle = [statistics.median(r[i] for r in all_runs) for i in range(3)]
            print(f"| {task} | {name} | {middle[0]:.1f} | {middle[1]:.1f} | {middle[2]:.0f} | {all_runs[-1][3]} |", flush=True)
    print(f"load average {os.getloadavg()}")


if sys.argv[1] == "one":
    _, _, name, task, path, out = sys.argv
    print({"DuckDB": duckdb_task, "Polars": polars_task}[name](task, path, out))
else:
    main()
