//! Which of Postgres' types hold which of ours. `docs/loading.md` has the same
//! table for people.

use super::encode::is_nested;
use crate::handlers::Failure;
use crate::handlers::load::columns::{common, conflict, delta_type};
use crate::handlers::transform::manifest::type_name;
use arrow::datatypes::{DataType, TimeUnit};

/// How a column's values are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::drivers) enum Wire {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// Precision and scale, where they are limited.
    Numeric(Option<(u8, i8)>),
    /// Also every type whose binary form is its text: `varchar`, `citext`, enums.
    Text,
    Json,
    Jsonb,
    Uuid,
    Bytea,
    Date,
    Timestamp,
    TimestampTz,
}

/// The type of a column, by its object id in `pg_type`, its kind there and its
/// modifier; `None` when its values cannot be sent.
pub(super) fn wire(oid: u32, kind: char, modifier: i32, name: &str) -> Option<Wire> {
    Some(match oid {
        16 => Wire::Bool,
        21 => Wire::Int2,
        23 => Wire::Int4,
        20 => Wire::Int8,
        700 => Wire::Float4,
        701 => Wire::Float8,
        1700 => Wire::Numeric(limits(modifier)?),
        25 | 1042 | 1043 => Wire::Text,
        114 => Wire::Json,
        3802 => Wire::Jsonb,
        2950 => Wire::Uuid,
        17 => Wire::Bytea,
        1082 => Wire::Date,
        1114 => Wire::Timestamp,
        1184 => Wire::TimestampTz,
        _ if kind == 'e' || name == "citext" => Wire::Text,
        _ => return None,
    })
}

/// Precision and scale as `numeric(p,s)` keeps them; `None` when they cannot be
/// ours: more than 38 digits are held by `numeric` without limits.
#[allow(clippy::option_option)]
fn limits(modifier: i32) -> Option<Option<(u8, i8)>> {
    if modifier < 4 {
        return Some(None);
    }
    let precision = u8::try_from(((modifier - 4) >> 16) & 0xffff).ok()?.min(38);
    // Eleven bits with a sign since version 15.
    let scale = (((modifier - 4) & 0x7ff) ^ 0x400) - 0x400;
    let scale = i8::try_from(scale).ok().filter(|s| (0..=38).contains(s))?;
    Some(Some((precision.max(u8::try_from(scale).ok()?), scale)))
}

/// A type as a table of Postgres takes it: as a Delta table does, but a
/// timestamp may be without a zone.
pub(in crate::drivers) fn normal(column: &str, kind: &DataType) -> Result<DataType, Failure> {
    Ok(match kind {
        DataType::Null => DataType::Null,
        DataType::Dictionary(_, values) => normal(column, values)?,
        DataType::Timestamp(_, zone) => timestamp(zone.is_some()),
        other => delta_type(column, other)?,
    })
}

fn timestamp(zone: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.then(|| "UTC".into()))
}

/// The type that a column is made with.
pub(super) fn made(kind: &DataType) -> String {
    match kind {
        DataType::Boolean => "boolean".to_owned(),
        DataType::Int8 | DataType::Int16 => "smallint".to_owned(),
        DataType::Int32 => "integer".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float32 => "real".to_owned(),
        DataType::Float64 => "double precision".to_owned(),
        DataType::Decimal128(p, s) => format!("numeric({p},{s})"),
        DataType::Binary => "bytea".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(_, None) => "timestamp".to_owned(),
        DataType::Timestamp(_, Some(_)) => "timestamptz".to_owned(),
        other if is_nested(other) => "jsonb".to_owned(),
        _ => "text".to_owned(),
    }
}

/// The type in which values of `kind` are sent to a column; each value is
/// checked when it is cast. `None` when they do not fit as a whole.
pub(in crate::drivers) fn sent(wire: Wire, kind: &DataType) -> Option<DataType> {
    use DataType as T;
    let whole = matches!(kind, T::Int8 | T::Int16 | T::Int32 | T::Int64)
        || matches!(kind, T::Decimal128(_, 0));
    let ours = own(wire, kind);
    let fits = match wire {
        _ if *kind == T::Null => true,
        Wire::Int2 | Wire::Int4 | Wire::Int8 => whole,
        Wire::Float4 => matches!(kind, T::Float32 | T::Int8 | T::Int16),
        Wire::Float8 => {
            matches!(
                kind,
                T::Float32 | T::Float64 | T::Int8 | T::Int16 | T::Int32
            )
        }
        Wire::Numeric(_) => whole || matches!(kind, T::Decimal128(..)),
        Wire::Json | Wire::Jsonb => *kind == T::Utf8 || is_nested(kind),
        Wire::Text => *kind == T::Utf8 || is_nested(kind),
        Wire::Timestamp | Wire::TimestampTz => matches!(kind, T::Timestamp(..)),
        Wire::Bool | Wire::Uuid | Wire::Bytea | Wire::Date => *kind == ours,
    };
    fits.then_some(ours)
}

fn own(wire: Wire, kind: &DataType) -> DataType {
    use DataType as T;
    match wire {
        Wire::Bool => T::Boolean,
        Wire::Int2 => T::Int16,
        Wire::Int4 => T::Int32,
        Wire::Int8 => T::Int64,
        Wire::Float4 => T::Float32,
        Wire::Float8 => T::Float64,
        Wire::Numeric(Some((p, s))) => T::Decimal128(p, s),
        Wire::Numeric(None) => match kind {
            T::Decimal128(p, s) if *s >= 0 => T::Decimal128(*p, *s),
            _ => T::Decimal128(38, 0),
        },
        Wire::Text | Wire::Json | Wire::Jsonb if is_nested(kind) => kind.clone(),
        Wire::Text | Wire::Json | Wire::Jsonb | Wire::Uuid => T::Utf8,
        Wire::Bytea => T::Binary,
        Wire::Date => T::Date32,
        Wire::Timestamp | Wire::TimestampTz => timestamp(wire == Wire::TimestampTz),
    }
}

/// The wider type that a column must get for values of `kind`, if it must and
/// there is one.
pub(super) fn widened(wire: Wire, kind: &DataType) -> Option<DataType> {
    use DataType as T;
    let there = match wire {
        Wire::Int2 | Wire::Int4 | Wire::Int8 | Wire::Float4 | Wire::Float8 => own(wire, kind),
        Wire::Numeric(Some((p, s))) => T::Decimal128(p, s),
        _ => return None,
    };
    let kind = match (&there, kind) {
        // The same number of digits as an integer of the size.
        (T::Decimal128(..), T::Int8 | T::Int16) => &T::Decimal128(5, 0),
        (T::Decimal128(..), T::Int32) => &T::Decimal128(10, 0),
        (T::Decimal128(..), T::Int64) => &T::Decimal128(19, 0),
        (_, other) => other,
    };
    common(&there, kind).filter(|wider| *wider != there)
}

/// A column whose type holds nothing of what is loaded.
pub(in crate::drivers) fn misfit(column: &str, shown: &str, kind: &DataType) -> Failure {
    let mut failure = conflict(column, kind, kind);
    failure.message = format!(
        "column `{column}` is {} in the outputs and {shown} in the table; cast it in the SQL",
        type_name(kind)
    );
    failure
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::datatypes::DataType as T;

    #[test]
    fn modifiers_of_numeric_are_read() {
        // As `atttypmod` has them for numeric, numeric(10,2), numeric(38,0), numeric(5,-2).
        assert_eq!(wire(1700, 'b', -1, "numeric"), Some(Wire::Numeric(None)));
        let modifier = |p: i32, s: i32| ((p << 16) | (s & 0x7ff)) + 4;
        let of = |p, s| wire(1700, 'b', modifier(p, s), "numeric");
        assert_eq!(of(10, 2), Some(Wire::Numeric(Some((10, 2)))));
        assert_eq!(of(38, 0), Some(Wire::Numeric(Some((38, 0)))));
        assert_eq!(of(5, -2), None);
    }

    #[test]
    fn what_a_table_is_made_with_takes_what_it_was_made_for() {
        let known = [
            (T::Boolean, Wire::Bool),
            (T::Int8, Wire::Int2),
            (T::Int64, Wire::Int8),
            (T::Float32, Wire::Float4),
            (T::Decimal128(18, 2), Wire::Numeric(Some((18, 2)))),
            (T::Utf8, Wire::Text),
            (timestamp(true), Wire::TimestampTz),
            (timestamp(false), Wire::Timestamp),
        ];
        for (kind, wire) in known {
            assert!(sent(wire, &kind).is_some(), "{kind}");
            assert_eq!(widened(wire, &kind), None, "{kind}");
        }
    }

    #[test]
    fn types_widen_where_nothing_is_lost() {
        assert_eq!(widened(Wire::Int4, &T::Int64), Some(T::Int64));
        assert_eq!(widened(Wire::Float4, &T::Float64), Some(T::Float64));
        let numeric = Wire::Numeric(Some((10, 2)));
        assert_eq!(
            widened(numeric, &T::Decimal128(12, 4)),
            Some(T::Decimal128(12, 4))
        );
        assert_eq!(widened(numeric, &T::Int64), Some(T::Decimal128(21, 2)));
        assert_eq!(widened(Wire::Int4, &T::Float64), None);
        assert_eq!(sent(Wire::Int4, &T::Float64), None);
    }
}
