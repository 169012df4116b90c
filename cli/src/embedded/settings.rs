//! The server's settings, written at every start so that they follow this release.
//! `postgresql.conf` includes them at its top; what an operator writes below wins.

use super::server_user::ServerUser;

/// The superuser that initdb makes. The product itself never uses it.
pub const SUPERUSER: &str = "postgres";
/// Owns the schema and migrates it.
pub const OWNER: &str = "streamspace_owner";
/// What API, worker and scheduler are: no DDL, and the audit only grows.
pub const APP: &str = "streamspace_app";
pub const DATABASE: &str = "streamspace";

const HEADER: &str = "# Written by streamspace at every start: changes are lost.\n";

/// `postgresql.conf` begins with this line.
pub const INCLUDE: &str = "include 'streamspace.conf' # kept by streamspace; your own settings go below\n";

pub fn server(memory_mib: u64) -> String {
    let shared = (memory_mib / 8).clamp(64, 1024);
    let cached = (memory_mib / 2).max(shared);
    format!(
        "{HEADER}\
         cluster_name = 'streamspace'\n\
         max_connections = 200\n\
         shared_buffers = {shared}MB\n\
         effective_cache_size = {cached}MB\n\
         random_page_cost = 1.1\n\
         jit = off\n\
         # What is committed is on the disk: the product's first promise.\n\
         fsync = on\n\
         full_page_writes = on\n\
         synchronous_commit = on\n\
         wal_compression = on\n\
         wal_level = replica\n\
         # Job tables change quickly.\n\
         autovacuum_naptime = 15s\n\
         # A statement whose client was killed ends, instead of holding its locks to the end.\n\
         client_connection_check_interval = 5s\n\
         timezone = 'UTC'\n\
         log_timezone = 'UTC'\n\
         lc_messages = 'C'\n\
         # A file a weekday, each overwritten after a week.\n\
         logging_collector = on\n\
         log_directory = 'log'\n\
         log_filename = 'postgresql-%a.log'\n\
         log_truncate_on_rotation = on\n\
         log_rotation_age = 1d\n\
         log_rotation_size = 0\n\
         log_checkpoints = off\n\
         log_line_prefix = '%m [%p] %u@%d '\n"
    )
}

/// Only over the socket, and only whom the kernel says is the same user.
pub fn host_based_access() -> String {
    format!("{HEADER}local all all peer map=streamspace\n")
}

/// Whoever may run `streamspace up` on this data directory, and the server's own user, whom
/// pg_upgrade runs as.
pub fn user_names(user: &ServerUser) -> String {
    let mut systems = vec![user.client_name()];
    if user.name != user.client_name() {
        systems.push(&user.name);
    }
    let lines = systems
        .into_iter()
        .flat_map(|system| [SUPERUSER, OWNER, APP].map(|role| format!("streamspace \"{system}\" {role}\n")));
    HEADER.chars().chain(lines.collect::<String>().chars()).collect()
}

/// What this machine has, 4 GiB if it does not say.
pub fn memory_mib() -> u64 {
    let said = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = said
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse().ok());
    kib.map_or(4096, |kib: u64| kib / 1024)
}
