//! Functions that loading data needs and the engine lacks.
//!
//! The engine's own casts round decimals without a word and its parsers fail a
//! whole query for one value; these are exact, or null. JSON is reached by RFC
//! 6901 pointers. Each of them takes what it is given as text.

use crate::handlers::transform::cell;
use arrow::array::AsArray;
use arrow::array::{
    Array, ArrayRef, Date32Array, Decimal128Array, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;

/// One of the functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Which {
    /// `json_text(json, pointer)`.
    JsonText,
    /// `parse_decimal(text, precision, scale [, separator])`.
    Decimal,
    /// `parse_date(text, form, ...)`.
    Date,
    /// `parse_timestamp(text, form, ...)`.
    Timestamp,
    /// `row_hash(value, ...)`.
    Hash,
}

const ALL: [Which; 5] = [
    Which::JsonText,
    Which::Decimal,
    Which::Date,
    Which::Timestamp,
    Which::Hash,
];

/// Makes the functions known.
///
/// # Errors
/// When the registry takes none.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for which in ALL {
        let function = Function {
            which,
            signature: Signature::variadic_any(Volatility::Immutable),
        };
        registry.register_udf(Arc::new(ScalarUDF::from(function)))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Function {
    which: Which,
    signature: Signature,
}

impl Function {
    /// What the arguments must be.
    fn check(&self, count: usize) -> Result<()> {
        let (fits, usage) = match self.which {
            Which::JsonText => (count == 2, "json_text(json, '/pointer')"),
            Which::Decimal => (
                count == 3 || count == 4,
                "parse_decimal(text, precision, scale [, separator])",
            ),
            Which::Date => (count > 1, "parse_date(text, '%d.%m.%Y', ...)"),
            Which::Timestamp => (count > 1, "parse_timestamp(text, '%d.%m.%Y %H:%M', ...)"),
            Which::Hash => (count > 0, "row_hash(value, ...)"),
        };
        match fits {
            true => Ok(()),
            false => plan_err!("`{}` is used as `{usage}`", self.name()),
        }
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        match self.which {
            Which::JsonText => "json_text",
            Which::Decimal => "parse_decimal",
            Which::Date => "parse_date",
            Which::Timestamp => "parse_timestamp",
            Which::Hash => "row_hash",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.check(types.len())?;
        Ok(match self.which {
            Which::JsonText | Which::Hash => DataType::Utf8,
            // Told by the arguments' values, below.
            Which::Decimal => DataType::Decimal128(38, 0),
            Which::Date => DataType::Date32,
            Which::Timestamp => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args
            .arg_fields
            .iter()
            .map(|f| f.data_type().clone())
            .collect();
        let mut kind = self.return_type(&types)?;
        if self.which == Which::Decimal {
            let number = |at: usize| -> Option<i64> {
                let value = args.scalar_arguments.get(at).copied().flatten()?;
                i64::try_from(value.cast_to(&DataType::Int64).ok()?).ok()
            };
            kind = match (number(1), number(2)) {
                (Some(p @ 1..=38), Some(s)) if (0..=p).contains(&s) => DataType::Decimal128(
                    // Both are at most 38.
                    u8::try_from(p).unwrap_or(38),
                    i8::try_from(s).unwrap_or(0),
                ),
                _ => {
                    return plan_err!(
                        "the precision of `parse_decimal` must be a number from 1 to 38, the scale one from 0 to the precision"
                    );
                }
            };
        }
        Ok(Arc::new(Field::new(
            self.name(),
            kind,
            self.which != Which::Hash,
        )))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args
            .args
            .iter()
            .all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let kind = args.return_field.data_type().clone();
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let texts = arrays
            .iter()
            .map(|a| cast(a, &DataType::Utf8))
            .collect::<Result<Vec<_>, _>>()?;
        let texts: Vec<&StringArray> = texts.iter().map(AsArray::as_string).collect();
        let made: ArrayRef = match (self.which, &kind) {
            (Which::JsonText, _) => Arc::new(json_text(texts[0], texts[1])),
            (Which::Decimal, DataType::Decimal128(p, s)) => Arc::new(
                decimals(texts[0], texts.get(3).copied(), *p, *s)
                    .with_precision_and_scale(*p, *s)?,
            ),
            (Which::Date, _) => Arc::new(dates(&texts)),
            (Which::Timestamp, _) => Arc::new(timestamps(&texts).with_timezone("UTC")),
            _ => Arc::new(hashes(&texts)),
        };
        match scalar {
            true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(
                &made, 0,
            )?)),
            false => Ok(ColumnarValue::Array(made)),
        }
    }
}

/// The text of an array's value.
fn at(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

fn json_text(json: &StringArray, pointers: &StringArray) -> StringArray {
    let one = |row: usize| -> Option<String> {
        let value: serde_json::Value = serde_json::from_str(at(json, row)?).ok()?;
        match value.pointer(at(pointers, row)?)? {
            serde_json::Value::Null => None,
            serde_json::Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    };
    (0..json.len()).map(one).collect()
}

fn decimals(
    texts: &StringArray,
    separators: Option<&StringArray>,
    precision: u8,
    scale: i8,
) -> Decimal128Array {
    let one = |row: usize| -> Option<i128> {
        let text = at(texts, row)?.trim();
        match separators.and_then(|s| at(s, row)) {
            Some(separator) => cell::decimal(&text.replace(separator, ""), precision, scale).ok(),
            None => cell::decimal(text, precision, scale).ok(),
        }
    };
    (0..texts.len()).map(one).collect()
}

/// The first form that reads the whole text.
fn first<T>(
    texts: &[&StringArray],
    row: usize,
    read: impl Fn(&str, &str) -> Option<T>,
) -> Option<T> {
    let text = at(texts[0], row)?.trim();
    texts[1..]
        .iter()
        .find_map(|forms| read(text, at(forms, row)?))
}

fn dates(texts: &[&StringArray]) -> Date32Array {
    let epoch = NaiveDate::default();
    let read = |text: &str, form: &str| NaiveDate::parse_from_str(text, form).ok();
    (0..texts[0].len())
        .map(|row| {
            first(texts, row, read).and_then(|day| i32::try_from((day - epoch).num_days()).ok())
        })
        .collect()
}

/// A form with a zone (`%z`) is that zone's time, one without is UTC's.
fn timestamps(texts: &[&StringArray]) -> TimestampMicrosecondArray {
    let read = |text: &str, form: &str| -> Option<i64> {
        if let Ok(time) = DateTime::parse_from_str(text, form) {
            return Some(time.timestamp_micros());
        }
        let local = NaiveDateTime::parse_from_str(text, form).ok();
        let day = || {
            NaiveDate::parse_from_str(text, form)
                .ok()?
                .and_hms_opt(0, 0, 0)
        };
        // A form with a zone must not be read without it.
        let zoned = form.contains("%z") || form.contains("%:z") || form.contains("%#z");
        let local = if zoned { None } else { local.or_else(day) };
        local.map(|time| time.and_utc().timestamp_micros())
    };
    (0..texts[0].len())
        .map(|row| first(texts, row, read))
        .collect()
}

/// 32 hexadecimal digits of SHA-256 over the values, each with its length (and
/// null apart from the empty text), so that no two rows look alike when joined.
fn hashes(texts: &[&StringArray]) -> StringArray {
    let one = |row: usize| {
        let mut hash = Sha256::new();
        for column in texts {
            match at(column, row) {
                None => hash.update([0]),
                Some(text) => {
                    hash.update([1]);
                    hash.update((text.len() as u64).to_le_bytes());
                    hash.update(text.as_bytes());
                }
            }
        }
        let mut hex = String::with_capacity(32);
        for byte in hash.finalize().iter().take(16) {
            // Writing to a string cannot fail.
            let _ = write!(hex, "{byte:02x}");
        }
        Some(hex)
    };
    (0..texts[0].len()).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::super::engine;
    use arrow::util::display::{ArrayFormatter, FormatOptions};

    async fn value(sql: &str) -> String {
        let context = engine::planner();
        let rows = match context.sql(&format!("select {sql}")).await {
            Ok(frame) => frame.collect().await,
            Err(e) => Err(e),
        };
        match rows {
            Err(e) => format!("error: {}", e.strip_backtrace()),
            Ok(rows) => {
                let options = FormatOptions::default().with_null("null");
                let column = rows[0].column(0);
                ArrayFormatter::try_new(column.as_ref(), &options)
                    .unwrap()
                    .value(0)
                    .to_string()
            }
        }
    }

    #[tokio::test]
    async fn decimals_are_exact_or_null() {
        assert_eq!(value("parse_decimal(' 1234.5', 18, 2)").await, "1234.50");
        assert_eq!(
            value("parse_decimal('1,234.50', 18, 2, ',')").await,
            "1234.50"
        );
        assert_eq!(value("parse_decimal('1.239', 18, 2)").await, "null");
        assert_eq!(value("parse_decimal('many', 18, 2)").await, "null");
        assert!(
            value("parse_decimal('1', 40, 2)")
                .await
                .contains("from 1 to 38")
        );
        assert!(value("parse_decimal('1')").await.contains("is used as"));
    }

    #[tokio::test]
    async fn dates_are_read_by_the_first_form_that_fits() {
        assert_eq!(
            value("parse_date('31.12.2024', '%Y-%m-%d', '%d.%m.%Y')").await,
            "2024-12-31"
        );
        assert_eq!(value("parse_date('2024-02-30', '%Y-%m-%d')").await, "null");
        assert_eq!(
            value("parse_timestamp('31.12.2024 23:59', '%d.%m.%Y %H:%M')").await,
            "2024-12-31T23:59:00Z"
        );
        assert_eq!(
            value("parse_timestamp('2024-12-31 23:00 +0200', '%Y-%m-%d %H:%M %z')").await,
            "2024-12-31T21:00:00Z"
        );
        assert_eq!(
            value("parse_timestamp('2024-12-31', '%d.%m.%Y', '%Y-%m-%d')").await,
            "2024-12-31T00:00:00Z"
        );
    }

    #[tokio::test]
    async fn json_is_reached_by_pointer() {
        assert_eq!(
            value(r#"json_text('{"a":{"b":[1,"x"]}}', '/a/b/1')"#).await,
            "x"
        );
        assert_eq!(
            value(r#"json_text('{"a":{"b":[1,"x"]}}', '/a/b')"#).await,
            "[1,\"x\"]"
        );
        assert_eq!(value(r#"json_text('{"a":null}', '/a')"#).await, "null");
        assert_eq!(value("json_text('no json', '/a')").await, "null");
    }

    #[tokio::test]
    async fn hashes_tell_rows_apart() {
        assert_ne!(
            value("row_hash('ab', 'c')").await,
            value("row_hash('a', 'bc')").await
        );
        assert_ne!(
            value("row_hash('', null)").await,
            value("row_hash(null, '')").await
        );
        assert_eq!(
            value("row_hash(1, 'x')").await,
            value("row_hash('1', 'x')").await
        );
        assert_eq!(value("length(row_hash(1))").await, "32");
    }
}
