//! How one value is written as text and read back. Files, variables and flags share this form.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use url::Url;

use crate::{
    secret::{HIDDEN, Secret},
    span,
};

pub trait Value: Sized {
    const SECRET: bool = false;
    /// A list of tables has no form in a variable or a flag.
    const IN_FILE_ONLY: bool = false;
    /// Completes "expected …" in the message about a bad value.
    const EXPECTED: &'static str;

    fn parse(text: &str) -> Option<Self>;
    /// What exactly is wrong with a text, where more than one thing can be. Says no secret.
    fn fault(_text: &str) -> Option<String> {
        None
    }
    /// `None` when there is no value.
    fn show(&self) -> Option<String>;
}

/// A value whose text is Rust's own for its type.
macro_rules! plain {
    ($($ty:ty: $expected:literal),+ $(,)?) => {$(
        impl $crate::config::value::Value for $ty {
            const EXPECTED: &'static str = $expected;
            fn parse(text: &str) -> Option<Self> {
                text.parse().ok()
            }
            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )+};
}

pub(super) use plain;

plain! {
    u16: "a port (0 to 65535)",
    u32: "a whole number",
    usize: "a whole number",
    f64: "a number",
    bool: "`true` or `false`",
    IpAddr: "an IP address",
    Url: "a URL",
    String: "text",
}

/// A value that is one of a few words.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[doc = $doc])* $variant),+ }

        impl $name {
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl $crate::config::value::Value for $name {
            const EXPECTED: &'static str = concat!("one of", $(" `", $word, "`"),+);
            fn parse(text: &str) -> Option<Self> {
                match text { $($word => Some(Self::$variant),)+ _ => None }
            }
            fn show(&self) -> Option<String> {
                Some(self.as_str().to_owned())
            }
        }
    };
}
pub(super) use words;

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path";

    /// `~/` is the home of whoever starts the process.
    fn parse(text: &str) -> Option<Self> {
        let path = match text.strip_prefix("~/") {
            Some(rest) => home().join(rest),
            None => Self::from(text),
        };
        (!text.is_empty()).then_some(path)
    }

    fn show(&self) -> Option<String> {
        let path = self.strip_prefix(home()).map_or_else(|_| self.clone(), |rest| Path::new("~").join(rest));
        Some(path.display().to_string())
    }
}

/// The home directory, or the root where there is none (system services, containers).
pub(super) fn home() -> PathBuf {
    std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).unwrap_or_else(|| PathBuf::from("/"))
}

impl Value for Vec<String> {
    const EXPECTED: &'static str = "a list, in one text separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let items: Self = text.split(',').map(|item| item.trim().to_owned()).collect();
        items.iter().all(|item| !item.is_empty()).then_some(items)
    }

    fn show(&self) -> Option<String> {
        Some(self.join(","))
    }
}

impl Value for Secret<String> {
    const SECRET: bool = true;
    const EXPECTED: &'static str = "text";

    fn parse(text: &str) -> Option<Self> {
        Some(Self::from(text))
    }

    fn show(&self) -> Option<String> {
        Some(HIDDEN.to_owned())
    }
}

impl<T: Value> Value for Option<T> {
    const SECRET: bool = T::SECRET;
    const EXPECTED: &'static str = T::EXPECTED;

    fn parse(text: &str) -> Option<Self> {
        T::parse(text).map(Some)
    }

    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as `500ms`, `10s`, `30m`, `24h`, `7d` or `1h 30m`";

    fn parse(text: &str) -> Option<Self> {
        span::parse(text)
    }

    fn show(&self) -> Option<String> {
        // As it is written in most places.
        const A_DAY: Duration = Duration::from_hours(24);
        Some(if *self == A_DAY { "24h".to_owned() } else { span::show(*self) })
    }
}

/// A number of bytes: `1MiB`, `64KiB`, `512B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl ByteSize {
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// For limits of what is held in memory; a size beyond the address space limits nothing.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl Value for ByteSize {
    const EXPECTED: &'static str = "a size such as `512B`, `64KiB`, `1MiB` or `2GiB`";

    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_number(text)?;
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit.trim_start())?;
        number.checked_mul(*factor).map(Self)
    }

    fn show(&self) -> Option<String> {
        let (unit, factor) =
            SIZES.iter().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor))?;
        Some(format!("{}{unit}", self.0 / factor))
    }
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_shown_alike() {
        for text in ["10s", "30m", "24h", "7d", "1h 30m", "1s 500ms"] {
            assert_eq!(Duration::parse(text).expect(text).show().as_deref(), Some(text));
        }
        assert_eq!(Duration::parse("1h30m"), Duration::parse("90m"));
        assert_eq!(Duration::parse("10"), None);
    }

    #[test]
    fn sizes_are_read_and_shown_alike() {
        for (text, bytes) in [("512B", 512), ("64KiB", 65_536), ("1MiB", 1 << 20), ("2GiB", 2 << 30)] {
            let size = ByteSize::parse(text).expect(text);
            assert_eq!(size, ByteSize(bytes));
            assert_eq!(size.show().as_deref(), Some(text));
        }
        for bad in ["", "1", "MiB", "1MB", "1.5MiB", "99999999999GiB"] {
            assert_eq!(ByteSize::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn lists_have_no_empty_items() {
        assert_eq!(Vec::parse("a, b"), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(Vec::<String>::parse("a,,b"), None);
    }

    #[test]
    fn a_tilde_is_the_home() {
        assert_eq!(PathBuf::parse("~/x"), Some(home().join("x")));
        assert_eq!(home().join("x").show().as_deref(), Some("~/x"));
    }
}
