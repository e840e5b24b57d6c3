//! Times of images: seconds since 1970, and RFC 3339 in UTC.
//! It must never ask for the time of day.

const DAY: i64 = 86_400;

/// `2023-11-14T22:13:20Z`; `None` outside of the years 0 to 9999.
pub fn rfc3339(seconds: i64) -> Option<String> {
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    (0..=9999).contains(&year).then(|| format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"))
}

/// Reads seconds since 1970, a day `2023-11-14`, or a time `2023-11-14T22:13:20Z`. Only what [`rfc3339`] can write.
pub fn parse(text: &str) -> Option<i64> {
    let seconds = if text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().ok()?
    } else {
        let (date, time) = text.split_once('T').unwrap_or((text, "00:00:00Z"));
        let [year, month, day] = numbers(date, '-', [4, 2, 2])?;
        let [hour, minute, second] = numbers(time.strip_suffix('Z')?, ':', [2, 2, 2])?;
        // `days_from_civil` of the same page.
        let shifted = if month <= 2 { year - 1 } else { year };
        let era = shifted.div_euclid(400);
        let year_of_era = shifted.rem_euclid(400);
        let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
        (era * 146_097 + day_of_era - 719_468) * DAY + hour * 3600 + minute * 60 + second
    };
    let written = rfc3339(seconds)?;
    // A day or an hour that does not exist would be written as another one.
    (text.len() < 10 || !text.contains('-') || written.starts_with(text)).then_some(seconds)
}

fn numbers(text: &str, separator: char, digits: [usize; 3]) -> Option<[i64; 3]> {
    let mut parts = text.split(separator);
    let mut number = |digits| {
        let part = parts.next()?;
        (part.len() == digits && part.bytes().all(|byte| byte.is_ascii_digit())).then(|| part.parse().ok())?
    };
    let read = [number(digits[0])?, number(digits[1])?, number(digits[2])?];
    parts.next().is_none().then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_written_in_utc() {
        for (seconds, expected) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            (1_700_000_000, Some("2023-11-14T22:13:20Z")),
            (253_402_300_799, Some("9999-12-31T23:59:59Z")),
            (253_402_300_800, None),
            (-1, Some("1969-12-31T23:59:59Z")),
        ] {
            assert_eq!(rfc3339(seconds).as_deref(), expected, "{seconds}");
        }
    }

    #[test]
    fn times_are_read_in_three_forms() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1700000000", Some(1_700_000_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000)),
            ("2000-02-29", Some(951_782_400)),
            ("1900-02-29", None),
            ("2023-11-14T24:00:00Z", None),
            ("2023-11-14T22:13:20", None),
            ("2023-11-14T22:13:20+01:00", None),
            ("2023-13-01", None),
            ("23-1-1", None),
            ("", None),
            ("-1", None),
            ("now", None),
            ("253402300800", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0_i64..253_402_300_800) {
            prop_assert_eq!(parse(&rfc3339(seconds).unwrap()), Some(seconds));
        }

        #[test]
        fn any_text_is_read_without_panic(text in "[0-9TZ:-]{0,24}") {
            let _ = parse(&text);
        }
    }
}
