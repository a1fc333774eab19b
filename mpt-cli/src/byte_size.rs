//! `--max-shard-size`, `--size-limit`: sizes in bytes with a unit.

use std::str::FromStr;

/// Size in bytes, parsed from text such as `5GB` or `500MiB`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ByteSize(pub(crate) u64);

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let factor: u64 = match text[digits..].to_ascii_uppercase().as_str() {
            "" | "B" => 1,
            "KB" => 1000,
            "MB" => 1_000_000,
            "GB" => 1_000_000_000,
            "KIB" => 1 << 10,
            "MIB" => 1 << 20,
            "GIB" => 1 << 30,
            _ => return Err("expected a number with KB, MB, GB, KiB, MiB or GiB".to_owned()),
        };
        let number = text[..digits].parse::<u64>().ok().and_then(|number| number.checked_mul(factor));
        number.filter(|&size| size > 0).map(Self).ok_or_else(|| "expected a number above 0".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        let size = |text: &str| text.parse::<ByteSize>().map(|size| size.0);
        assert_eq!(size("5GB"), Ok(5_000_000_000));
        assert_eq!(size("2MiB"), Ok(2 << 20));
        assert_eq!(size("77"), Ok(77));
        for wrong in ["", "GB", "0", "5TB", "-1", "99999999999999999999GB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
