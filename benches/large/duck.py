"""The same work in DuckDB, rejects kept. Usage: duck.py FILE OUTPUT_FOLDER"""
import duckdb, sys, time
file, out = sys.argv[1:]
began = time.time()
db = duckdb.connect()
db.execute("set threads = 2")
columns = "{'id':'bigint','at':'timestamp','country':'varchar','amount':'double','quantity':'bigint','customer':'varchar','product':'varchar','reference':'varchar'}"
db.execute(f"""
copy (select id, "at", country, amount, quantity, amount * quantity as total, customer, product, reference
      from read_csv('{file}', header = true, columns = {columns}, store_rejects = true, rejects_limit = 0)
      where length(country) = 2 and quantity >= 1)
to '{out}' (format parquet, compression zstd, partition_by (country), overwrite true)""")
print("seconds", round(time.time() - began, 1), "rejects", db.execute("select count(*) from reject_errors").fetchall()[0][0])
