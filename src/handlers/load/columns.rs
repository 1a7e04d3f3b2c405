//! The columns of a load: what the outputs have, as a Delta table takes it,
//! beside what the table has.
//!
//! | outputs | table |
//! | --- | --- |
//! | text, views and dictionaries of text | string |
//! | integers to 64 bits (unsigned: the next wider, 64 bits as decimal(20,0)) | byte, short, integer, long |
//! | floats (16 bits as 32) | float, double |
//! | timestamps of any unit, with or without zone | timestamp: microseconds in UTC |
//! | dates | date |
//! | decimals to 38 digits | decimal |
//! | lists, structs, maps of these | the same |
//!
//! A timestamp without zone is taken as UTC: the type `timestamp_ntz` needs a
//! table feature that not every reader has.

use crate::handlers::Failure;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use std::sync::Arc;

/// A type as a Delta table takes it.
///
/// # Errors
/// When there is none, naming the column.
pub fn delta_type(column: &str, kind: &DataType) -> Result<DataType, Failure> {
    use DataType as T;
    let inner = |field: &FieldRef| -> Result<FieldRef, Failure> {
        let kind = delta_type(column, field.data_type())?;
        Ok(Arc::new(Field::new(field.name(), kind, true)))
    };
    Ok(match kind {
        T::Boolean
        | T::Int8
        | T::Int16
        | T::Int32
        | T::Int64
        | T::Float32
        | T::Float64
        | T::Utf8
        | T::Binary
        | T::Date32 => kind.clone(),
        T::Decimal128(..) => kind.clone(),
        T::Decimal32(p, s) | T::Decimal64(p, s) => T::Decimal128(*p, *s),
        T::UInt8 => T::Int16,
        T::UInt16 => T::Int32,
        T::UInt32 => T::Int64,
        T::UInt64 => T::Decimal128(20, 0),
        T::Float16 => T::Float32,
        T::Utf8View | T::LargeUtf8 | T::Null => T::Utf8,
        T::BinaryView | T::LargeBinary | T::FixedSizeBinary(_) => T::Binary,
        T::Date64 => T::Date32,
        T::Timestamp(..) => timestamp(),
        T::Dictionary(_, values) => delta_type(column, values)?,
        T::List(field) | T::LargeList(field) | T::ListView(field) => T::List(inner(field)?),
        T::Struct(fields) => T::Struct(fields.iter().map(inner).collect::<Result<_, _>>()?),
        other => {
            return Err(Failure::permanent(
                "SchemaConflict",
                format!(
                    "column `{column}` is of type {other}, which a table cannot hold; cast it in the SQL"
                ),
            ));
        }
    })
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// The type that a kind of table has for one that is written.
pub type Normal = fn(&str, &DataType) -> Result<DataType, Failure>;

/// The union of the columns of all outputs, all of them nullable, in the types
/// of one kind of table.
///
/// # Errors
/// When outputs disagree on a column's type.
pub fn union(schemas: &[Schema], normal: Normal) -> Result<Schema, Failure> {
    let mut fields: Vec<Field> = Vec::new();
    for field in schemas.iter().flat_map(|s| s.fields().iter()) {
        let kind = normal(field.name(), field.data_type())?;
        match fields.iter_mut().find(|f| f.name() == field.name()) {
            None => fields.push(Field::new(field.name(), kind, true)),
            Some(known) => {
                let wider = common(known.data_type(), &kind)
                    .ok_or_else(|| conflict(field.name(), known.data_type(), &kind))?;
                known.set_data_type(wider);
            }
        }
    }
    Ok(Schema::new(fields))
}

/// The columns to be written: those of the outputs in the table's types, and
/// new ones as they are.
///
/// # Errors
/// When a column does not fit the table's.
pub fn fit(outputs: &Schema, table: Option<&Schema>) -> Result<Schema, Failure> {
    let Some(table) = table else {
        return Ok(outputs.clone());
    };
    let mut fields = Vec::with_capacity(outputs.fields().len());
    for field in outputs.fields() {
        let kind = match table.field_with_name(field.name()) {
            Err(_) => field.data_type().clone(),
            Ok(there) => {
                let plain = delta_type(field.name(), there.data_type())?;
                match common(&plain, field.data_type()) {
                    Some(wider) if wider == plain => plain,
                    _ => return Err(conflict(field.name(), there.data_type(), field.data_type())),
                }
            }
        };
        fields.push(Field::new(field.name(), kind, true));
    }
    Ok(Schema::new(fields))
}

/// A column whose values the table's column does not hold.
#[must_use]
pub fn conflict(column: &str, there: &DataType, here: &DataType) -> Failure {
    use crate::handlers::transform::manifest::type_name;
    Failure::permanent(
        "SchemaConflict",
        format!(
            "column `{column}` is {} in the outputs and {} in the table; cast it in the SQL, or load into another table",
            type_name(here),
            type_name(there)
        ),
    )
}

/// The type that holds the values of both exactly.
#[must_use]
pub fn common(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType as T;
    let bits = |t: &DataType| match t {
        T::Int8 => Some(8_u8),
        T::Int16 => Some(16),
        T::Int32 => Some(32),
        T::Int64 => Some(64),
        _ => None,
    };
    if a == b {
        return Some(a.clone());
    }
    match (a, b) {
        (T::Null, other) | (other, T::Null) => Some(other.clone()),
        (T::Float32, T::Float64) | (T::Float64, T::Float32) => Some(T::Float64),
        (T::Decimal128(p1, s1), T::Decimal128(p2, s2)) => {
            let scale = *s1.max(s2);
            let whole = (i16::from(*p1) - i16::from(*s1)).max(i16::from(*p2) - i16::from(*s2));
            let precision = u8::try_from(whole + i16::from(scale))
                .ok()
                .filter(|p| *p <= 38)?;
            Some(T::Decimal128(precision, scale))
        }
        (T::List(x), T::List(y)) if x.data_type() == y.data_type() => Some(a.clone()),
        (T::Struct(x), T::Struct(y)) => {
            let same = x.len() == y.len()
                && x.iter()
                    .zip(y)
                    .all(|(x, y)| x.name() == y.name() && x.data_type() == y.data_type());
            same.then(|| a.clone())
        }
        _ => match (bits(a), bits(b)) {
            (Some(x), Some(y)) => Some(if x > y { a.clone() } else { b.clone() }),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(fields: &[(&str, DataType)]) -> Schema {
        Schema::new(
            fields
                .iter()
                .map(|(n, k)| Field::new(*n, k.clone(), false))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn columns_widen_but_never_lose() {
        let outputs = union(
            &[
                schema(&[
                    ("a", DataType::Int32),
                    ("t", DataType::Timestamp(TimeUnit::Nanosecond, None)),
                ]),
                schema(&[("a", DataType::Int64), ("b", DataType::Utf8View)]),
            ],
            delta_type,
        )
        .unwrap();
        assert_eq!(outputs.field(0).data_type(), &DataType::Int64);
        assert_eq!(outputs.field(1).data_type(), &timestamp());
        assert_eq!(outputs.field(2).data_type(), &DataType::Utf8);
        let table = schema(&[("a", DataType::Int32)]);
        let failure = fit(&outputs, Some(&table)).unwrap_err();
        assert_eq!(failure.code, "SchemaConflict");
        assert!(
            failure
                .message
                .contains("`a` is bigint in the outputs and integer in the table"),
            "{}",
            failure.message
        );
        let narrow = schema(&[("a", DataType::Int32)]);
        let wide = schema(&[("a", DataType::Int64), ("z", DataType::Utf8)]);
        assert_eq!(
            fit(&narrow, Some(&wide)).unwrap().field(0).data_type(),
            &DataType::Int64
        );
    }
}
