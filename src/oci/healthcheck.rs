//! How Docker finds out whether a container works: `Healthcheck`, one of Docker's additions to an image config.
//! It must never accept a check that Docker would not run.

use std::fmt;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize};

use super::config::{Text, Word};

/// Docker's shortest time but 0, in nanoseconds.
const MILLISECOND: u64 = 1_000_000;

/// Docker's image specification 1.2, `Healthcheck`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", try_from = "Written")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", PROGRAM, ARGUMENT…]` or `["CMD-SHELL", COMMAND]`. Without it that of the base image counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    test: Option<Vec<Text<Word>>>,
    /// From one check to the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<Time>,
    /// How long a check may take.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<Time>,
    /// How long the container may take to start; failures do not count until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_period: Option<Time>,
    /// From one check to the next in that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    start_interval: Option<Time>,
    /// After so many failures the container counts as broken.
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
}

/// The same before it was checked.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Written {
    test: Option<Vec<Text<Word>>>,
    interval: Option<Time>,
    timeout: Option<Time>,
    start_period: Option<Time>,
    start_interval: Option<Time>,
    retries: Option<u32>,
}

impl TryFrom<Written> for Healthcheck {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        let Written { test, interval, timeout, start_period, start_interval, retries } = written;
        let words: Vec<_> = test.iter().flatten().map(Text::as_str).collect();
        if !matches!(words[..], [] | ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _]) {
            return Err(
                "`Test` is neither `[\"NONE\"]` nor `[\"CMD\", PROGRAM, …]` nor `[\"CMD-SHELL\", COMMAND]`".into()
            );
        }
        Ok(Self { test, interval, timeout, start_period, start_interval, retries })
    }
}

/// A time in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
struct Time(u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Checked;
        // In a visitor, since only there does serde_json add line and column to an error.
        impl Visitor<'_> for Checked {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time in nanoseconds, 0 or at least 1000000")
            }

            fn visit_u64<E: Error>(self, time: u64) -> Result<Time, E> {
                // Docker keeps it as a signed number.
                if (time == 0 || time >= MILLISECOND) && i64::try_from(time).is_ok() {
                    Ok(Time(time))
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Unsigned(time), &self))
                }
            }
        }
        deserializer.deserialize_u64(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::config::Map;

    #[test]
    fn checks_that_docker_runs_are_read_and_written_again() {
        for text in [
            "{}",
            r#"{"Test":[]}"#,
            r#"{"Test":["NONE"]}"#,
            r#"{"Test":["CMD","curl","-f","http://localhost/"],"Interval":30000000000,"Timeout":1000000,"Retries":3}"#,
            r#"{"Test":["CMD-SHELL","exit 0"],"StartPeriod":0,"StartInterval":5000000000}"#,
        ] {
            let read: Healthcheck = serde_json::from_str(text).unwrap();
            assert_eq!(serde_json::to_string(&read).unwrap(), text);
        }
    }

    #[test]
    fn others_are_refused_with_their_place() {
        for (text, message) in [
            (r#"{"Test":["curl"]}"#, "`Test` is neither"),
            (r#"{"Test":["CMD"]}"#, "`Test` is neither"),
            (r#"{"Test":["NONE","x"]}"#, "`Test` is neither"),
            (r#"{"Test":["CMD-SHELL","a","b"]}"#, "`Test` is neither"),
            (r#"{"Test":"exit 0"}"#, "expected a sequence"),
            (r#"{"Interval":"30s"}"#, "expected a time in nanoseconds, 0 or at least 1000000"),
            (r#"{"Interval":30}"#, "expected a time in nanoseconds, 0 or at least 1000000"),
            (r#"{"Interval":-1}"#, "expected a time in nanoseconds"),
            (r#"{"Timeout":9223372036854775808}"#, "expected a time in nanoseconds"),
            (r#"{"Retries":-1}"#, "expected u32"),
            (r#"{"Retry":1}"#, "unknown field `Retry`"),
        ] {
            let error = serde_json::from_str::<Map<Healthcheck>>(text).unwrap_err();
            assert!(error.to_string().contains(message) && error.line() == 1, "{text}: {error}");
        }
    }
}
