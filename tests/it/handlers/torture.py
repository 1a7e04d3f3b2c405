"""What DuckDB and pandas make of the torture set: a JSON object per file, with
the number of rows and the sums of `id` and `amount`, or the error."""
import json
import sys
from decimal import Decimal

import duckdb
import pandas

SCHEMAS = {
    "typed": {"id": "BIGINT", "name": "VARCHAR", "amount": "DECIMAL(18,2)"},
    "dates": {"id": "BIGINT", "day": "DATE", "at": "TIMESTAMPTZ"},
    "flags": {"id": "BIGINT", "flag": "BOOLEAN"},
}


def shown(rows, ids, amounts):
    def number(value):
        if value is None:
            return "-"
        value = Decimal(str(value))
        return f"{value.normalize():f}" if value else "0"

    return f"{rows} rows, ids {number(ids)}, amounts {number(amounts)}"


def plain_name(path):
    for ending in (".gz", ".bz2", ".xz", ".zst"):
        path = path.removesuffix(ending)
    return path


def by_duckdb(path, options):
    con = duckdb.connect()
    con.execute("set TimeZone='UTC'")
    schema = SCHEMAS.get(options.get("schema", "typed"))
    name = plain_name(path)
    arguments = []
    if name.endswith(".parquet"):
        scan = f"read_parquet('{path}')"
    elif name.endswith(("json", ".ndjson")):
        if schema:
            arguments.append(f"columns={schema}")
        if name.endswith(".ndjson"):
            arguments.append("ignore_errors=true")
        kind = "newline_delimited" if name.endswith(".ndjson") else "array"
        scan = f"read_json('{path}', format='{kind}', {', '.join(arguments)})"
    else:
        arguments.append("store_rejects=true")
        arguments.append(f"header={str(options.get('header', True)).lower()}")
        if schema:
            arguments.append(f"columns={schema}")
        for ours, theirs in (("delimiter", "delim"), ("comment", "comment"), ("skip", "skip"), ("escape", "escape"), ("null", "nullstr")):
            if ours in options:
                value = options[ours]
                if ours == "null":
                    texts = ", ".join(f"'{text}'" for text in value + [""])
                    arguments.append(f"{theirs}=[{texts}]")
                elif isinstance(value, int):
                    arguments.append(f"{theirs}={value}")
                else:
                    arguments.append(f"{theirs}='{value}'")
        if options.get("ragged") == "fill":
            arguments.append("null_padding=true")
        if "encoding" in options:
            arguments.append("encoding='latin-1'")
        scan = f"read_csv('{path}', {', '.join(arguments)})"
    columns = [row[0] for row in con.execute(f"describe select * from {scan}").fetchall()]
    sums = [f"sum({c})" if c in columns else "null" for c in ("id", "amount")]
    rows = con.execute(f"select count(*), {sums[0]}, {sums[1]} from {scan}").fetchone()
    # Without a use of their columns, values are not looked at.
    con.execute(f"create table t as select * from {scan}")
    return shown(*rows)


def by_pandas(path, options):
    name = plain_name(path)
    if name.endswith(".parquet"):
        frame = pandas.read_parquet(path)
    elif name.endswith((".json", ".ndjson")):
        frame = pandas.read_json(path, lines=name.endswith(".ndjson"), dtype=False)
    else:
        arguments = {"dtype": str, "on_bad_lines": "skip"}
        for ours, theirs in (("delimiter", "sep"), ("comment", "comment"), ("escape", "escapechar"), ("encoding", "encoding")):
            if ours in options:
                arguments[theirs] = options[ours]
        if "skip" in options:
            arguments["skiprows"] = options["skip"]
        if not options.get("header", True):
            arguments |= {"header": None, "names": ["id", "name", "amount"]}
        frame = pandas.read_csv(path, **arguments)

    def total(column):
        if column not in frame:
            return None
        values = [str(v) for v in frame[column] if v is not None and not pandas.isna(v)]
        return sum((Decimal(v) for v in values), Decimal(0)) if values else None

    return shown(len(frame), total("id"), total("amount"))


def safely(read, path, options):
    try:
        return read(path, options)
    except BaseException as error:
        return f"fails ({type(error).__name__})"


folder, generated, index = sys.argv[1:]
answers = {}
for entry in json.load(open(index)):
    name, options = entry["file"], entry.get("options", {})
    path = f"{generated}/{name}" if name in ("wide_field.csv", "long_record.csv", "columns_5000.csv") else f"{folder}/{name}"
    answers[name] = {
        "duckdb": safely(by_duckdb, path, options),
        "pandas": safely(by_pandas, path, options),
    }
print(json.dumps(answers))
