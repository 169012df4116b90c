//! Where values come from, first wins: flag, our variable, the published variable, file, default.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
};

use serde_json::Value as Tree;

use super::{
    problems::{Problem, Problems},
    section::{Key, variable},
    value::Value,
};

/// Everything that a configuration is read from; made by the command line, or literally by a test.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `section.name` to value, from flags.
    pub flags: BTreeMap<String, String>,
    pub environment: BTreeMap<String, String>,
    /// TOML, or YAML by its extension.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// The process's environment; the file is the flag's or `STREAMSPACE_CONFIG`'s.
    pub fn of_process(flags: BTreeMap<String, String>, file: Option<PathBuf>) -> Self {
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        let named = environment.get("STREAMSPACE_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { flags, file: file.or(named), environment }
    }
}

/// Where a value came from, for `config show` and for messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    /// The variable's name: ours, or the published one.
    Environment(String),
    File(PathBuf),
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Environment(name) => f.write_str(name),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Reads values key by key, remembers where each came from and collects all problems.
pub struct Reader<'a> {
    sources: &'a Sources,
    file: BTreeMap<String, String>,
    pub(super) origins: BTreeMap<&'static str, Origin>,
    pub(super) problems: Problems,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources) -> Self {
        let mut reader =
            Self { sources, file: BTreeMap::new(), origins: BTreeMap::new(), problems: Problems::default() };
        if let Some(path) = &sources.file {
            match parse_file(path) {
                Ok(tree) => reader.flatten(path, tree),
                Err(message) => reader.problems.add("--config", Some(Origin::File(path.clone())), message),
            }
        }
        reader
    }

    pub(super) fn value<T: Value>(&mut self, path: &'static str, aliases: &[&str], default: T) -> T {
        let Some((text, origin)) = self.find::<T>(path, aliases) else {
            self.origins.insert(path, Origin::Default);
            return default;
        };
        let value = T::parse(&text);
        if value.is_none() {
            let got = if T::SECRET { "another value".to_owned() } else { format!("{text:?}") };
            let message = T::fault(&text).unwrap_or_else(|| format!("expected {}, got {got}", T::EXPECTED));
            self.problems.add(path, Some(origin.clone()), message);
        }
        self.origins.insert(path, origin);
        value.unwrap_or(default)
    }

    /// An empty variable counts as absent: compose files and charts pass those for what is not set.
    fn find<T: Value>(&self, path: &str, aliases: &[&str]) -> Option<(String, Origin)> {
        let from_file = || Some((self.file.get(path)?.clone(), Origin::File(self.sources.file.clone()?)));
        if T::IN_FILE_ONLY {
            return from_file();
        }
        let variable_set = |name: &str| {
            let value = self.sources.environment.get(name).filter(|value| !value.is_empty())?;
            Some((value.clone(), Origin::Environment(name.to_owned())))
        };
        if let Some(value) = self.sources.flags.get(path) {
            return Some((value.clone(), Origin::Flag));
        }
        let published = || aliases.iter().copied().find_map(variable_set);
        variable_set(&variable(path)).or_else(published).or_else(from_file)
    }

    fn flatten(&mut self, path: &Path, tree: Tree) {
        let origin = Some(Origin::File(path.to_owned()));
        let sections = match tree {
            Tree::Object(sections) => sections,
            Tree::Null => return, // an empty YAML file
            _ => return self.problems.add("--config", origin, "expected sections with keys"),
        };
        for (section, keys) in sections {
            let Tree::Object(keys) = keys else {
                self.problems.add(&section, origin.clone(), "expected a section with keys");
                continue;
            };
            for (name, value) in keys {
                let key = format!("{section}.{name}");
                match as_text(&value) {
                    Ok(Some(text)) => drop(self.file.insert(key, text)),
                    Ok(None) => {}
                    Err(message) => self.problems.add(&key, origin.clone(), message),
                }
            }
        }
    }

    /// A misspelt key would otherwise be a default in silence.
    pub(super) fn refuse_unknown(&mut self, keys: &[Key]) {
        let paths: BTreeSet<&str> = keys.iter().map(|key| key.path).collect();
        let elsewhere: BTreeSet<&str> =
            keys.iter().filter(|key| !key.in_file_only).map(|key| key.path).collect();
        let variables: BTreeSet<String> = elsewhere.iter().map(|path| variable(path)).collect();
        let file = self.sources.file.clone().map(Origin::File);
        let from_file = self.file.keys().map(|key| (key.as_str(), file.clone()));
        let from_flags = self.sources.flags.keys().map(|key| (key.as_str(), Some(Origin::Flag)));
        let mut unknown: Vec<Problem> = from_flags
            .filter(|(key, _)| !elsewhere.contains(key))
            .map(|(key, origin)| Problem::unknown(key, origin, elsewhere.iter().copied()))
            .collect();
        unknown.extend(
            from_file
                .filter(|(key, _)| !paths.contains(key))
                .map(|(key, origin)| Problem::unknown(key, origin, paths.iter().copied())),
        );
        unknown.extend(
            self.sources
                .environment
                .keys()
                .filter(|name| {
                    name.starts_with("STREAMSPACE_") && !variables.contains(*name) && !is_exempt(name)
                })
                .map(|name| Problem::unknown(name, None, variables.iter().map(String::as_str))),
        );
        self.problems.0.extend(unknown);
    }
}

/// Left to tests, to the client commands and to the search for the file.
fn is_exempt(variable: &str) -> bool {
    variable.starts_with("STREAMSPACE_TEST_")
        || ["STREAMSPACE_URL", "STREAMSPACE_API_KEY", "STREAMSPACE_CONFIG"].contains(&variable)
}

/// The parsers' own messages quote the line, and with it a secret.
fn parse_file(path: &Path) -> Result<Tree, String> {
    let text = std::fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => toml::from_str(&text).map_err(|error| {
            let (line, column) = place(&text, error.span().map_or(0, |span| span.start));
            format!("line {line}, column {column}: {}", error.message())
        }),
        Some("yaml" | "yml") => serde_saphyr::from_str(&text).map_err(|error| match error.location() {
            Some(at) => format!("line {}, column {}: no valid YAML", at.line(), at.column()),
            None => "no valid YAML".to_owned(),
        }),
        _ => Err("expected a name that ends in .toml, .yaml or .yml".to_owned()),
    }
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or(before);
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}

fn as_text(value: &Tree) -> Result<Option<String>, &'static str> {
    match value {
        Tree::Null => Ok(None),
        Tree::String(text) => Ok(Some(text.clone())),
        Tree::Number(number) => Ok(Some(number.to_string())),
        Tree::Bool(value) => Ok(Some(value.to_string())),
        // Tables are told by what reads them; nothing else has any.
        Tree::Array(items) if items.iter().any(Tree::is_object) => Ok(Some(value.to_string())),
        Tree::Array(items) => {
            let items = items.iter().map(|item| as_text(item)?.ok_or("expected no empty items"));
            Ok(Some(items.collect::<Result<Vec<_>, _>>()?.join(",")))
        }
        Tree::Object(_) => Err("expected a value, got a section"),
    }
}
