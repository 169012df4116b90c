//! The server's files: made once, kept for good, never opened by another major version.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{
    binaries::Binaries,
    server_user::ServerUser,
    settings::{self, SUPERUSER},
};
use crate::{data_dir::DataDir, failure::Advice};

pub struct Cluster {
    pub dir: PathBuf,
    pub binaries: Binaries,
    pub user: ServerUser,
}

impl Cluster {
    /// Opens the cluster, or makes it at the first start.
    pub async fn prepare(data_dir: &DataDir, user: ServerUser) -> Result<Self> {
        let dir = data_dir.join("postgres");
        user.check_reach(data_dir.path()).await?;
        let binaries = match major_of(&dir)? {
            Some(major) => {
                Binaries::of_major(major).map_or_else(|| Err(other_major(&dir, major, &user)), Ok)?
            }
            None => {
                let newest = Binaries::newest()?;
                initialise(data_dir, &dir, &newest, &user).await?;
                newest
            }
        };
        Ok(Self { dir, binaries, user })
    }

    /// Writes the settings that follow the release. Not while a server runs on them.
    pub fn configure(&self) -> Result<()> {
        self.write("streamspace.conf", &settings::server(settings::memory_mib()))?;
        self.write("pg_hba.conf", &settings::host_based_access())?;
        self.write("pg_ident.conf", &settings::user_names(&self.user))?;
        let main = self.dir.join("postgresql.conf");
        let current = fs::read_to_string(&main).with_context(|| format!("cannot read {}", main.display()))?;
        if !current.contains(settings::INCLUDE) {
            self.write("postgresql.conf", &format!("{}{current}", settings::INCLUDE))?;
        }
        Ok(())
    }

    /// Replaces a file as a whole. The name it is written under is new, so that nothing that the
    /// server's user left there is followed.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        let path = self.dir.join(name);
        if fs::read_to_string(&path).is_ok_and(|current| current == text) {
            return Ok(());
        }
        let context = || format!("cannot write {}", path.display());
        let temporary = self.dir.join(format!(".{name}.{}", std::process::id()));
        fs::remove_file(&temporary).ok();
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(context)?;
        file.write_all(text.as_bytes()).with_context(context)?;
        self.user.own_file(&file)?;
        file.sync_all().with_context(context)?;
        fs::rename(&temporary, &path).with_context(context)
    }
}

/// The major version that made the directory; `None` if there is none yet.
fn major_of(dir: &Path) -> Result<Option<u32>> {
    let path = dir.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse() {
            Ok(major) => Ok(Some(major)),
            Err(_) => bail!("{} does not hold a version of PostgreSQL: {:?}", path.display(), text.trim()),
        },
        Err(_) if !dir.exists() => Ok(None),
        Err(error) => Err(error).context(Advice::new(
            format!("{} is not a data directory of PostgreSQL", dir.display()),
            "move it away, or choose another --data-dir",
        )),
    }
}

/// Makes the files beside their place and moves them there when they are whole, so that a start
/// that was killed leaves nothing half made.
async fn initialise(data_dir: &DataDir, dir: &Path, binaries: &Binaries, user: &ServerUser) -> Result<()> {
    const UNFINISHED: &str = "postgres.new-";
    for entry in fs::read_dir(data_dir.path()).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
    let new = data_dir.join(&format!("{UNFINISHED}{}", std::process::id()));
    let mut said = String::new();
    // Debian has C.UTF-8 always, other systems at least C, which knows letters of ASCII only.
    for locale in ["C.UTF-8", "C"] {
        fs::remove_dir_all(&new).ok();
        DirBuilder::new()
            .mode(0o700)
            .create(&new)
            .with_context(|| format!("cannot make {}", new.display()))?;
        user.own(&new)?;
        let output = user
            .command(&binaries.program("initdb"))
            .current_dir(&new)
            .arg("--pgdata")
            .arg(&new)
            .args(["--username", SUPERUSER, "--auth", "peer", "--encoding", "UTF8", "--locale", locale])
            .args(["--data-checksums", "--no-instructions"])
            .output()
            .await
            .with_context(|| format!("cannot run {}", binaries.program("initdb").display()))?;
        if output.status.success() {
            return fs::rename(&new, dir)
                .with_context(|| format!("cannot move {} into place", new.display()));
        }
        said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    }
    fs::remove_dir_all(&new).ok();
    bail!("initdb could not make PostgreSQL's files in {}:\n{said}", dir.display())
}

/// Names the commands that carry the data over to the release that is installed.
fn other_major(dir: &Path, major: u32, user: &ServerUser) -> anyhow::Error {
    let installed = match Binaries::newest() {
        Ok(newest) => newest,
        Err(error) => return error,
    };
    let old = quote(dir);
    let new = quote(&dir.with_extension(installed.major.to_string()));
    let kept = quote(&dir.with_extension(major.to_string()));
    let bin = quote(&installed.dir);
    let (become_user, make) = if user.is_other() {
        (format!("runuser -u {} -- ", user.name), format!("install -d -m 700 -o {} {new}", user.name))
    } else {
        (String::new(), format!("install -d -m 700 {new}"))
    };
    let beside = installed.dir.to_string_lossy().replace(&installed.major.to_string(), &major.to_string());
    let old_bin = quote(Path::new(&beside));
    Advice::new(
        format!(
            "the data in {} was made by PostgreSQL {major}; installed is {}",
            dir.display(),
            installed.major
        ),
        format!(
            "install PostgreSQL {major} as well (Debian, Ubuntu: apt-get install postgresql-{major}); then either \
             start again, which uses it, or carry the data over to {}:\n\
             {make}\n\
             cd {new}\n\
             {become_user}{bin}/initdb -D {new} -U {SUPERUSER} -A trust -E UTF8 --locale C.UTF-8 --data-checksums\n\
             {become_user}{bin}/pg_upgrade -U {SUPERUSER} -s /tmp -b {old_bin} -B {bin} -d {old} -D {new}\n\
             mv {old} {kept} && mv {new} {old}",
            installed.major
        ),
    )
    .into()
}

/// For a shell.
fn quote(path: &Path) -> String {
    let path = path.to_string_lossy();
    if path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
        path.into_owned()
    } else {
        format!("'{}'", path.replace('\'', r"'\''"))
    }
}
