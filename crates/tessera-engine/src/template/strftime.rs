//! The date formats that chat templates ask for. No clock is read: the caller says what time it is.

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// `strftime` of seconds since 1970. The error is the format that is not known.
pub(super) fn strftime(seconds: i64, format: &str) -> Result<String, String> {
    let days = seconds.div_euclid(86_400);
    let second = seconds.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let weekday = DAYS[(days + 4).rem_euclid(7) as usize];
    let name = MONTHS[(month - 1) as usize];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut letter = chars.next().unwrap_or('%');
        let bare = letter == '-';
        if bare {
            letter = chars.next().unwrap_or('%');
        }
        let padded = |n: i64, width: usize| if bare { n.to_string() } else { format!("{n:0width$}") };
        match letter {
            'Y' => out.push_str(&year.to_string()),
            'y' => out.push_str(&padded(year.rem_euclid(100), 2)),
            'm' => out.push_str(&padded(month, 2)),
            'd' => out.push_str(&padded(day, 2)),
            'e' => out.push_str(&format!("{day:2}")),
            'H' => out.push_str(&padded(hour, 2)),
            'I' => out.push_str(&padded((hour + 11) % 12 + 1, 2)),
            'M' => out.push_str(&padded(minute, 2)),
            'S' => out.push_str(&padded(second % 60, 2)),
            'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            'j' => out.push_str(&padded(days - from_civil(year) + 1, 3)),
            'A' => out.push_str(weekday),
            'a' => out.push_str(&weekday[..3]),
            'B' => out.push_str(name),
            'b' | 'h' => out.push_str(&name[..3]),
            'c' => out.push_str(&strftime(seconds, "%a %b %e %H:%M:%S %Y")?),
            'x' | 'D' => out.push_str(&strftime(seconds, "%m/%d/%y")?),
            'X' => out.push_str(&strftime(seconds, "%T")?),
            'R' => out.push_str(&format!("{hour:02}:{minute:02}")),
            'u' => out.push_str(&((days + 3).rem_euclid(7) + 1).to_string()),
            'w' => out.push_str(&(days + 4).rem_euclid(7).to_string()),
            'C' => out.push_str(&padded(year.div_euclid(100), 2)),
            'f' => out.push_str("000000"),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            // Python's local time has no zone.
            'z' | 'Z' => {}
            'F' => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            'T' => out.push_str(&format!("{hour:02}:{minute:02}:{:02}", second % 60)),
            '%' => out.push('%'),
            other => return Err(format!("%{other}")),
        }
    }
    Ok(out)
}

/// Year, month and day of a day since 1970, in eras of 400 years that begin with March.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The day since 1970 on which a year begins.
fn from_civil(year: i64) -> i64 {
    let before = year - 1;
    before * 365 + before.div_euclid(4) - before.div_euclid(100) + before.div_euclid(400) - 719_162
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_python() {
        // datetime.fromtimestamp(t, timezone.utc).strftime(...)
        for (t, text) in [
            (0, "Thursday 01 January 1970 00:00:00 AM 001 1970-01-01"),
            (951_782_400, "Tuesday 29 February 2000 00:00:00 AM 060 2000-02-29"),
            (1_735_689_599, "Tuesday 31 December 2024 23:59:59 PM 366 2024-12-31"),
        ] {
            assert_eq!(strftime(t, "%A %d %B %Y %H:%M:%S %p %j %F").unwrap(), text);
        }
        assert_eq!(strftime(1_722_470_400, "%d %b %Y").unwrap(), "01 Aug 2024");
        assert_eq!(strftime(1_722_470_400, "%-d %y 100%%").unwrap(), "1 24 100%");
        assert_eq!(strftime(0, "%Q").unwrap_err(), "%Q");
    }
}
