"""Writes a CSV of about 2 GB with 0.1 % rows that break the schema. Usage: gen.py FILE ROWS"""
import duckdb, sys
out, rows = sys.argv[1], int(sys.argv[2])
duckdb.sql(f"""
copy (select i as id,
  strftime(timestamp '2025-01-01' + to_seconds(i % 31536000), '%Y-%m-%dT%H:%M:%SZ') as at,
  ['DE','FR','US','GB','IT','ES','PL','NL','SE','AT','CH','BE','DK'][(i * 7919 % 13 + 1)::int] as country,
  case when i % 1000 = 7 then 'oops' else ((i * 48271 % 1000000) / 100.0)::varchar end as amount,
  (i * 31 % 9 + 1) as quantity,
  'customer-' || (i * 104729 % 500000) as customer,
  'product ' || (i * 15485863 % 9973) as product,
  md5(i::varchar) as reference
from range({rows}) t(i)) to '{out}' (header, delimiter ',')""")
