//! Values of arguments that are more than a word: sizes, times, numbers with a range, pairs.

use std::path::PathBuf;
use tessera_engine::sampler::range::{self, Range};

/// `32MiB`, `16k`, `1000000`, `1.5GB`: K, M, G, T with `i` are powers of 1024, without powers of 1000.
pub(super) fn byte_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let wrong = || "a number with a unit, such as 32MiB or 1.5GB".to_string();
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1000,
        "m" | "mb" => 1000 * 1000,
        "g" | "gb" => 1000 * 1000 * 1000,
        "t" | "tb" => 1000 * 1000 * 1000 * 1000,
        "ki" | "kib" => 1 << 10,
        "mi" | "mib" => 1 << 20,
        "gi" | "gib" => 1 << 30,
        "ti" | "tib" => 1 << 40,
        other => return Err(format!("unknown unit \"{other}\"; use KiB, MiB, GiB, TiB, kB, MB, GB or TB")),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
    let number: u64 = whole.parse().map_err(|_| wrong())?;
    // Parts of a byte are no size; nine places are more than enough.
    let places =
        u32::try_from(part.len()).ok().filter(|places| (1..=9).contains(places)).ok_or_else(wrong)?;
    let part: u128 = part.parse().map_err(|_| wrong())?;
    let (part, rest) =
        (part * u128::from(factor) / 10u128.pow(places), part * u128::from(factor) % 10u128.pow(places));
    if rest != 0 {
        return Err(format!("{text} is not a whole number of bytes"));
    }
    match u64::try_from(u128::from(number) * u128::from(factor) + part) {
        Ok(0) | Err(_) => Err("must be between 1 byte and 2^64 bytes".into()),
        Ok(bytes) => Ok(bytes),
    }
}

/// Seconds, as a time.
#[cfg(feature = "server")]
pub(super) fn seconds(text: &str) -> Result<std::time::Duration, String> {
    const MOST: f64 = 1e6;
    let number = text.parse().ok().filter(|&s: &f64| (0.0..=MOST).contains(&s));
    let number = number.ok_or_else(|| format!("must be a number of seconds from 0 to {MOST}"))?;
    Ok(std::time::Duration::from_secs_f64(number))
}

fn number(text: &str, range: Range) -> Result<f32, String> {
    let number = text.parse().ok().filter(|&v: &f32| range.check(v).is_ok());
    number.ok_or_else(|| format!("must be a number from {}", range.expected))
}

/// A number that the sampler takes.
pub(super) fn within(range: Range) -> impl Fn(&str) -> Result<f32, String> + Clone {
    move |text| number(text, range)
}

/// A folder, and how much of it; a folder may have `=` in its name.
pub(super) fn adapter(text: &str) -> Result<(PathBuf, f64), String> {
    let whole = PathBuf::from(text);
    match text.rsplit_once('=').filter(|_| !whole.exists()) {
        None => Ok((whole, 1.0)),
        Some((folder, scale)) => {
            let number = scale.parse().ok().filter(|s: &f64| s.is_finite() && s.abs() <= 1e6);
            let number =
                number.ok_or_else(|| format!("\"{scale}\" is not a scale, expected a number such as 0.5"))?;
            Ok((PathBuf::from(folder), number))
        }
    }
}

/// `ID=BIAS`.
pub(super) fn id_and_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("write ID=BIAS, such as 42=-1.5")?;
    Ok((id.parse().map_err(|_| format!("\"{id}\" is not a token id"))?, number(bias, range::LOGIT_BIAS)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(byte_size("32MiB"), Ok(32 << 20));
        assert_eq!(byte_size("16kb"), Ok(16_000));
        assert_eq!(byte_size("5"), Ok(5));
        assert_eq!(byte_size("1.5GB"), Ok(1_500_000_000));
        assert_eq!(byte_size("0.5 TiB"), Ok(1 << 39));
        assert_eq!(byte_size("2T"), Ok(2_000_000_000_000));
        for bad in
            ["", "MiB", "-1", "1.5", "0", "9999999999999GiB", "3 parsecs", "1.", ".5k", "1.2.3k", "0.0001k"]
        {
            assert!(byte_size(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn adapters_may_have_a_scale() {
        assert_eq!(adapter("a/b"), Ok(("a/b".into(), 1.0)));
        assert_eq!(adapter("a=b=-0.5"), Ok(("a=b".into(), -0.5)));
        assert!(["a=", "a=x", "a=inf", "a=1e9"].iter().all(|text| adapter(text).is_err()));
    }
}
