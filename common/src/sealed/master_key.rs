//! The master keys and the file that holds them.
//!
//! One key a line, in base64; the first seals, all open. A rotation adds a key that only opens, so that every
//! process can learn of it; puts it first and seals every stored value again; then drops the old keys: at each
//! moment every value can be opened by everybody.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use ring::{
    aead::{AES_256_GCM, LessSafeKey, UnboundKey},
    digest, hkdf, hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

use crate::secret::{Secret, Wipe};

const KEY_LEN: usize = 32;
pub(super) const KEY_ID_LEN: usize = 8;
/// Before the key that is to seal.
const NEXT: &str = "next ";
/// The start of the key's hash: tells keys apart, and nothing about the key.
pub(super) type KeyId = [u8; KEY_ID_LEN];

const HEAD: &str =
    "# StreamSpace master keys: the first seals, all open. Without them stored secrets are lost.";

#[derive(Debug, Error)]
pub enum KeyFileError {
    #[error("{path}: there is no master key file; processes of one installation share one")]
    Missing { path: PathBuf },
    #[error("{path}: others may read the master key (mode {mode:o}); run: chmod 600 {path}")]
    TooOpen { path: PathBuf, mode: u32 },
    #[error("{path}: line {line} is no master key (32 bytes in base64)")]
    Malformed { path: PathBuf, line: usize },
    #[error("{path}: holds no master key")]
    Empty { path: PathBuf },
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

/// The keys in force. Never empty.
#[derive(Clone, Debug)]
pub struct MasterKeys {
    /// The first seals.
    keys: Vec<MasterKey>,
    /// Will seal, and only opens as yet.
    next: Option<MasterKey>,
}

#[derive(Clone, Debug)]
pub(super) struct MasterKey(Secret<[u8; KEY_LEN]>);

impl MasterKey {
    fn generate() -> Self {
        let mut key = [0; KEY_LEN];
        SystemRandom::new().fill(&mut key).expect("the system gives randomness");
        Self(Secret::new(key))
    }

    pub(super) fn id(&self) -> KeyId {
        let hash = digest::digest(&digest::SHA256, self.0.expose());
        std::array::from_fn(|at| hash.as_ref()[at])
    }

    /// Derived: no key is used for two things.
    pub(super) fn mac(&self) -> hmac::Key {
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(self.0.expose());
        let info = [b"streamspace marks".as_slice()];
        derived.expand(&info, hmac::HMAC_SHA256).expect("shorter than HKDF's limit").into()
    }

    pub(super) fn aead(&self) -> LessSafeKey {
        LessSafeKey::new(
            UnboundKey::new(&AES_256_GCM, self.0.expose()).expect("a key of the cipher's length"),
        )
    }
}

impl MasterKeys {
    /// One new key, not stored anywhere yet.
    pub fn generate() -> Self {
        Self { keys: vec![MasterKey::generate()], next: None }
    }

    /// With one that is to seal, and only opens as yet.
    #[must_use]
    pub fn with_next_key(mut self) -> Self {
        self.next.get_or_insert_with(MasterKey::generate);
        self
    }

    pub fn has_next(&self) -> bool {
        self.next.is_some()
    }

    /// The next key before those that are, or a new one.
    #[must_use]
    pub fn with_new_key(mut self) -> Self {
        let next = self.next.take().unwrap_or_else(MasterKey::generate);
        self.keys.insert(0, next);
        self
    }

    /// Without the keys that sealed before.
    #[must_use]
    pub fn only_current(mut self) -> Self {
        self.keys.truncate(1);
        self
    }

    /// Whether there are keys that sealed before.
    pub fn has_old(&self) -> bool {
        self.keys.len() > 1
    }

    /// Names the key that seals, in hexadecimal, and tells nothing about it.
    pub fn current_id(&self) -> String {
        hexadecimal(self.current().id())
    }

    /// Whether a key of that name is among them.
    pub fn has(&self, id: &str) -> bool {
        self.all().any(|key| hexadecimal(key.id()) == id)
    }

    pub(super) fn current(&self) -> &MasterKey {
        &self.keys[0]
    }

    /// The current one first.
    pub(super) fn all(&self) -> impl Iterator<Item = &MasterKey> {
        self.keys.iter().chain(&self.next)
    }

    pub(super) fn find(&self, id: KeyId) -> Option<&MasterKey> {
        self.all().find(|key| key.id() == id)
    }

    /// The keys of a file that only its owner may read.
    pub fn load(path: &Path) -> Result<Self, KeyFileError> {
        let io_error = |source| KeyFileError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => KeyFileError::Missing { path: path.to_owned() },
            _ => io_error(e),
        })?;
        let mode = file.metadata().map_err(io_error)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyFileError::TooOpen { path: path.to_owned(), mode });
        }
        let mut text = io::read_to_string(file).map_err(io_error)?;
        let keys = parse(path, &text);
        text.wipe();
        keys
    }

    /// The keys of the file, which is made when there is none.
    pub fn load_or_generate(path: &Path) -> Result<Self, KeyFileError> {
        match Self::load(path) {
            Err(KeyFileError::Missing { .. }) => {}
            loaded => return loaded,
        }
        let keys = Self::generate();
        match keys.write(path, Overwrite::No) {
            // Another process made it first; its key is the installation's.
            Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                Self::load(path)
            }
            written => written.map(|()| keys),
        }
    }

    /// Replaces the file as a whole: after a crash it holds the keys of before or of after.
    pub fn store(&self, path: &Path) -> Result<(), KeyFileError> {
        self.write(path, Overwrite::Yes)
    }

    fn write(&self, path: &Path, overwrite: Overwrite) -> Result<(), KeyFileError> {
        self.try_write(path, overwrite).map_err(|source| KeyFileError::Io { path: path.to_owned(), source })
    }

    fn try_write(&self, path: &Path, overwrite: Overwrite) -> io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        let draft = path.with_extension(format!("draft-{}", std::process::id()));
        let mut text = self.to_text();
        let written = (|| {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            match overwrite {
                Overwrite::Yes => fs::rename(&draft, path)?,
                // Unlike a rename, a link fails where something already is.
                Overwrite::No => fs::hard_link(&draft, path)?,
            }
            File::open(folder)?.sync_all()
        })();
        text.wipe();
        // Absent after a rename; left over after anything else.
        fs::remove_file(&draft)
            .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
        written
    }

    fn to_text(&self) -> String {
        let text = |key: &MasterKey| BASE64_STANDARD.encode(key.0.expose()) + "\n";
        let next = self.next.iter().map(|key| format!("{NEXT}{}", text(key)));
        format!("{HEAD}\n{}", self.keys.iter().map(text).chain(next).collect::<String>())
    }
}

fn hexadecimal(id: KeyId) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

enum Overwrite {
    Yes,
    No,
}

fn parse(path: &Path, text: &str) -> Result<MasterKeys, KeyFileError> {
    let (mut keys, mut next) = (Vec::new(), None);
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (is_next, line) = line.strip_prefix(NEXT).map_or((false, line), |line| (true, line));
        let key = BASE64_STANDARD.decode(line).ok().and_then(|bytes| bytes.try_into().ok());
        let malformed = || KeyFileError::Malformed { path: path.to_owned(), line: at + 1 };
        let key = MasterKey(Secret::new(key.ok_or_else(malformed)?));
        match is_next {
            true => next = Some(key),
            false => keys.push(key),
        }
    }
    match keys.is_empty() {
        true => Err(KeyFileError::Empty { path: path.to_owned() }),
        false => Ok(MasterKeys { keys, next }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a folder")
    }

    fn ids(keys: &MasterKeys) -> Vec<KeyId> {
        keys.all().map(MasterKey::id).collect()
    }

    #[test]
    fn a_missing_file_is_made_once_for_its_owner_alone() {
        let folder = folder();
        let path = folder.path().join("new/master.key");
        assert!(matches!(MasterKeys::load(&path), Err(KeyFileError::Missing { .. })));
        let made = MasterKeys::load_or_generate(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600);
        assert_eq!(ids(&MasterKeys::load_or_generate(&path).expect("read")), ids(&made));
        assert_eq!(fs::read_dir(path.parent().expect("new")).expect("listed").count(), 1, "no drafts stay");
    }

    #[test]
    fn processes_that_start_together_agree_on_one_key() {
        let folder = folder();
        let path = folder.path().join("master.key");
        MasterKeys::generate().write(&path, Overwrite::No).expect("the first");
        let second = MasterKeys::generate().write(&path, Overwrite::No);
        assert!(
            matches!(second, Err(KeyFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists)
        );
        assert_eq!(fs::read_dir(folder.path()).expect("listed").count(), 1, "no drafts stay");
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = folder();
        let path = folder.path().join("master.key");
        MasterKeys::generate().store(&path).expect("stored");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("opened up");
        let refusal = MasterKeys::load_or_generate(&path).expect_err("refused").to_string();
        assert!(refusal.contains("mode 640") && refusal.contains("chmod 600"), "{refusal}");
    }

    #[test]
    fn the_new_key_is_first_and_the_old_ones_stay() {
        let folder = folder();
        let path = folder.path().join("master.key");
        let old = MasterKeys::load_or_generate(&path).expect("made");
        let both = old.clone().with_new_key();
        both.store(&path).expect("stored");
        let loaded = MasterKeys::load(&path).expect("read");
        assert_eq!(ids(&loaded), ids(&both));
        assert_eq!(ids(&loaded)[1], ids(&old)[0]);
    }

    #[test]
    fn bad_lines_are_named() {
        let path = Path::new("k");
        assert!(matches!(parse(path, "# only\n"), Err(KeyFileError::Empty { .. })));
        assert!(matches!(parse(path, "# x\n\nAAAA\n"), Err(KeyFileError::Malformed { line: 3, .. })));
    }
}
