//! How a section is declared: once, with everything that is known of each key.

use super::{reader::Reader, value::Value};

/// One key, as `docs/configuration.md` and `config show` tell of it.
#[derive(Clone, Debug)]
pub struct Key {
    /// `section.name`, the way it is written in a file and in every message.
    pub path: &'static str,
    pub doc: String,
    pub default: String,
    pub secret: bool,
    /// It has neither a variable nor a flag.
    pub in_file_only: bool,
    /// The variables of the published API that also set it, when ours does not; the first wins.
    pub aliases: &'static [&'static str],
}

impl Key {
    /// The environment variable: the section is one word, so the way back is unambiguous.
    pub fn variable(&self) -> String {
        variable(self.path)
    }

    pub fn section(&self) -> &'static str {
        self.path.split('.').next().unwrap_or(self.path)
    }
}

pub(super) fn variable(path: &str) -> String {
    format!("STREAMSPACE_{}", path.replace('.', "_").to_uppercase())
}

/// What `section!` makes of a declaration.
pub trait Section: Default {
    const NAME: &'static str;
    /// What the section is about, in a sentence.
    const ABOUT: &'static str;

    fn keys() -> Vec<Key>;
    fn read(reader: &mut Reader<'_>) -> Self;
    /// Each key with its value as text, in the order of declaration; secrets hidden.
    fn shown(&self) -> Vec<(&'static str, Option<String>)>;
}

/// Declares a section: a struct that tests can build literally (`..Default::default()`), with its
/// keys, how they are read and how they are shown.
///
/// `shown "…"` replaces the default's text where it depends on other keys; whether a key is secret
/// follows from its type.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $section:literal => $Type:ident {
            $(
                $(#[doc = $doc:literal])+
                $field:ident: $ty:ty = $default:expr
                    $(, shown $shown:literal)?
                    $(, alias $alias:literal $(| $more:literal)*)?;
            )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug)]
        pub struct $Type {
            $(
                $(#[doc = $doc])+
                #[doc = ""]
                #[doc = concat!("`", $section, ".", stringify!($field), "`, by default `", stringify!($default), "`.")]
                pub $field: $ty,
            )+
        }

        impl Default for $Type {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }

        impl $crate::config::section::Section for $Type {
            const NAME: &'static str = $section;
            const ABOUT: &'static str = concat!($($about),+);

            fn keys() -> Vec<$crate::config::section::Key> {
                let default = Self::default();
                vec![$($crate::config::section::Key {
                    path: concat!($section, ".", stringify!($field)),
                    doc: concat!($($doc),+).trim().to_owned(),
                    default: [$($shown.to_owned(),)? $crate::config::section::default_text(&default.$field)]
                        .into_iter().next().unwrap_or_default(),
                    secret: <$ty as $crate::config::value::Value>::SECRET,
                    in_file_only: <$ty as $crate::config::value::Value>::IN_FILE_ONLY,
                    aliases: &[$($alias $(, $more)*)?],
                }),+]
            }

            fn read(reader: &mut $crate::config::reader::Reader<'_>) -> Self {
                let default = Self::default();
                Self { $(
                    $field: reader.value(
                        concat!($section, ".", stringify!($field)),
                        &[$($alias $(, $more)*)?],
                        default.$field,
                    ),
                )+ }
            }

            fn shown(&self) -> Vec<(&'static str, Option<String>)> {
                vec![$((
                    concat!($section, ".", stringify!($field)),
                    $crate::config::value::Value::show(&self.$field),
                )),+]
            }
        }
    };
}
pub(super) use section;

pub(super) fn default_text<T: Value>(default: &T) -> String {
    default.show().map_or_else(|| "none".to_owned(), |text| format!("`{text}`"))
}
