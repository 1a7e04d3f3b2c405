//! Durations and sizes as people write them.

use chrono::{DateTime, NaiveDate};
use std::time::Duration;

/// Why a text is not a duration or a size, with what would be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct UnitError {
    pub message: String,
    pub hint: String,
}

const DURATION_UNITS: [(&str, u64); 6] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
];

const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// Reads a time, `2013-01-01T00:00:00Z` or `2013-01-01` (UTC), as Unix milliseconds.
pub(super) fn time(text: &str) -> Option<i64> {
    let midnight = |day: NaiveDate| Some(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp_millis());
    let time = DateTime::parse_from_rfc3339(text).map(|t| t.timestamp_millis());
    time.ok().or_else(|| text.parse().ok().and_then(midnight))
}

/// Reads a moment as people name it: a time, `now`, `earliest`, or a duration ago
/// (`7d`), as Unix milliseconds.
///
/// # Errors
/// When the text is none of these; the message says what would be.
pub fn moment(text: &str, now_ms: i64) -> Result<i64, String> {
    let ago = || {
        let span = duration(text).ok()?;
        Some(now_ms.saturating_sub(i64::try_from(span.as_millis()).ok()?))
    };
    match text {
        "now" => Ok(now_ms),
        "earliest" => Ok(i64::MIN),
        _ => time(text).or_else(ago).ok_or_else(|| {
            format!(
                "`{text}` is not a time: write `2013-01-01T00:00:00Z`, `2013-01-01`, `7d` (ago), `earliest` or `now`"
            )
        }),
    }
}

/// A duration as people write it on the command line: `30s`, `1h30m`, `7d`.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    duration(text).map_err(|e| e.to_string())
}

/// Reads `250ms`, `5s`, `1h30m`, `1.5h`, `7d`, `0`.
pub(super) fn duration(text: &str) -> Result<Duration, UnitError> {
    let wrong = |hint: String| UnitError {
        message: format!("`{text}` is not a duration"),
        hint,
    };
    let usual =
        || "write a number and a unit, like `250ms`, `5s`, `2m`, `1h30m` or `7d`".to_owned();
    let trimmed = text.trim();
    if trimmed == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = trimmed;
    let mut total_ms = 0f64;
    while !rest.is_empty() {
        let (number, after) = number(rest).ok_or_else(|| wrong(usual()))?;
        let written = &rest[..rest.len() - after.len()];
        let after = after.trim_start();
        let letters = after
            .find(|c: char| !c.is_ascii_alphabetic() && c != 'µ')
            .unwrap_or(after.len());
        let unit = &after[..letters];
        if unit.is_empty() {
            return Err(wrong(format!(
                "which unit? write `{written}s` for seconds or `{written}ms` for milliseconds"
            )));
        }
        let Some((_, ms)) = DURATION_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(wrong(match long_unit(unit) {
                Some(short) => format!("write `{written}{short}`"),
                None => {
                    format!("unknown unit `{unit}`; units are `ms`, `s`, `m`, `h`, `d` and `w`")
                }
            }));
        };
        total_ms += number * *ms as f64;
        rest = after[letters..].trim_start();
    }
    // A hundred years; far above any sensible value and far below overflow.
    if trimmed.is_empty() || total_ms > 3.2e12 {
        return Err(wrong(usual()));
    }
    Ok(Duration::from_millis(total_ms.round() as u64))
}

/// The unit that a longer word means.
fn long_unit(word: &str) -> Option<&'static str> {
    match word.to_lowercase().as_str() {
        "msec" | "millis" | "millisecond" | "milliseconds" => Some("ms"),
        "sec" | "secs" | "second" | "seconds" => Some("s"),
        "min" | "mins" | "minute" | "minutes" => Some("m"),
        "hr" | "hrs" | "hour" | "hours" => Some("h"),
        "day" | "days" => Some("d"),
        "week" | "weeks" => Some("w"),
        _ => None,
    }
}

/// Reads `64MiB`, `10MB`, `1.5GiB`, `4096`.
pub(super) fn size(text: &str) -> Result<u64, UnitError> {
    let wrong = |hint: String| UnitError {
        message: format!("`{text}` is not a size"),
        hint,
    };
    let usual = || {
        "write bytes, or a number and a unit, like `4096`, `64KiB`, `128MiB` or `10MB`".to_owned()
    };
    let (number, after) = number(text.trim()).ok_or_else(|| wrong(usual()))?;
    let unit = after.trim_start();
    let factor = match SIZE_UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, factor)) => *factor,
        None if unit.is_empty() => 1,
        None => {
            let near = SIZE_UNITS.iter().find(|(name, _)| {
                name.eq_ignore_ascii_case(unit)
                    || name.to_lowercase().starts_with(&unit.to_lowercase())
            });
            return Err(wrong(match near {
                Some((name, _)) if !unit.is_empty() => {
                    let binary = name.chars().next().filter(|_| name.len() > 1);
                    match binary {
                        Some(letter) => format!(
                            "unknown unit `{unit}`; write `{0}iB` (powers of 1024) or `{1}B` (powers of 1000)",
                            letter.to_ascii_uppercase(),
                            if letter.eq_ignore_ascii_case(&'k') {
                                'k'
                            } else {
                                letter.to_ascii_uppercase()
                            },
                        ),
                        None => usual(),
                    }
                }
                _ => usual(),
            }));
        }
    };
    let bytes = number * factor as f64;
    if bytes > 9e15 {
        return Err(wrong(usual()));
    }
    Ok(bytes.round() as u64)
}

/// A number without sign, and what follows it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let value = text[..end].parse::<f64>().ok()?;
    Some((value, &text[end..]))
}

/// A duration as people write it, exact to the millisecond: `1h30m`, `250ms`, `0s`.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    let mut ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if ms == 0 {
        return "0s".to_owned();
    }
    let mut out = String::new();
    for (unit, factor) in DURATION_UNITS.iter().rev().filter(|(unit, _)| *unit != "w") {
        let whole = ms / factor;
        if whole > 0 {
            out.push_str(&format!("{whole}{unit}"));
            ms %= factor;
        }
    }
    out
}

/// A size as people write it, exact: the largest unit that divides it.
#[must_use]
pub fn format_size(bytes: u64) -> String {
    let mut units: Vec<_> = SIZE_UNITS.iter().filter(|(name, _)| *name != "B").collect();
    units.sort_by_key(|(_, factor)| std::cmp::Reverse(*factor));
    match units
        .iter()
        .find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor))
    {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let ms = |text: &str| duration(text).unwrap().as_millis();
        assert_eq!(ms("250ms"), 250);
        assert_eq!(ms("1h30m"), 5_400_000);
        assert_eq!(ms("1.5h"), 5_400_000);
        assert_eq!(ms("7d"), 604_800_000);
        assert_eq!(ms("1h 30 m"), 5_400_000);
        assert_eq!(ms("0"), 0);
    }

    #[test]
    fn broken_durations_say_what_would_do() {
        let hint = |text: &str| duration(text).unwrap_err().hint;
        assert!(hint("5").contains("`5s` for seconds or `5ms`"));
        assert_eq!(hint("7 days"), "write `7d`");
        assert_eq!(hint("5min"), "write `5m`");
        assert!(hint("5x").contains("unknown unit `x`"));
        for bad in ["", "-5s", "s", "1..2s", "99999999999999w", "5s5", "٣s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("10MB"), Ok(10_000_000));
        assert_eq!(size("4096"), Ok(4096));
        assert_eq!(size("1.5 GiB"), Ok(3 << 29));
        assert!(
            size("10mb")
                .unwrap_err()
                .hint
                .contains("`MiB` (powers of 1024) or `MB`")
        );
        assert!(
            size("10k")
                .unwrap_err()
                .hint
                .contains("`KiB` (powers of 1024) or `kB`")
        );
        for bad in ["", "MB", "-1", "1 zebra", "99999TB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back(ms in 0u64..3_000_000_000_000, bytes in 0u64..9_000_000_000_000_000) {
            let d = Duration::from_millis(ms);
            proptest::prop_assert_eq!(duration(&format_duration(d)).unwrap(), d);
            proptest::prop_assert_eq!(size(&format_size(bytes)).unwrap(), bytes);
        }

        #[test]
        fn no_text_makes_them_panic(text in ".{0,20}") {
            let _ = duration(&text);
            let _ = size(&text);
        }
    }
}
