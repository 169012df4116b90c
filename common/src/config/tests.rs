use std::{fs, net::IpAddr, time::Duration};

use super::*;

fn environment(variables: &[(&str, &str)]) -> Sources {
    let environment =
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..Default::default() }
}

fn problems(sources: &Sources) -> Vec<String> {
    Config::load(sources).expect_err("a refusal").0.iter().map(ToString::to_string).collect()
}

fn file(name: &str, text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    fs::write(&path, text).expect("a file");
    (folder, path)
}

#[test]
fn nothing_set_is_a_development_machine_with_an_embedded_database() {
    let config = Config::load(&Sources::default()).expect("defaults");
    assert!(!config.database.is_configured());
    assert_eq!(config.server.environment, Environment::Development);
    assert_eq!(config.server.public_url(), "http://127.0.0.1:8080");
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.jobs.heartbeat, Duration::from_secs(3));
    assert_eq!(config.master_key_file(), config.server.data_dir.join("master.key"));
}

#[test]
fn a_database_of_your_own_is_production() {
    let config = Config::load(&environment(&[("DB_PASSWORD", "correct horse battery")])).expect("good");
    assert_eq!(config.server.environment, Environment::Production);
    assert_eq!(config.server.host, IpAddr::from([0, 0, 0, 0]));
    assert_eq!(config.log.format, LogFormat::Json);
    let url = config.database.url().expect("parts");
    assert!(url.expose().contains("@localhost:5432/streamspace"));
}

#[test]
fn the_first_source_wins() {
    let (_folder, path) =
        file("c.toml", "[server]\nport = 1\nadmin_port = 1\n[jobs]\nconcurrency = 1\nfair_share = 0.25\n");
    let mut sources = environment(&[
        ("STREAMSPACE_SERVER_PORT", "2"),
        ("PORT", "3"),
        ("STREAMSPACE_JOBS_CONCURRENCY", "2"),
        ("STREAMSPACE_SERVER_ADMIN_PORT", ""),
    ]);
    sources.file = Some(path.clone());
    sources.flags.insert("server.port".to_owned(), "4".to_owned());
    let config = Config::load(&sources).expect("good");
    assert_eq!(config.server.port, 4);
    assert_eq!(config.jobs.concurrency, 2);
    assert_eq!(config.server.admin_port, 1, "an empty variable is absent");
    assert_eq!(config.jobs.fair_share, 0.25);
    assert_eq!(config.origins["server.port"], Origin::Flag);
    assert_eq!(
        config.origins["jobs.concurrency"],
        Origin::Environment("STREAMSPACE_JOBS_CONCURRENCY".to_owned())
    );
    assert_eq!(config.origins["server.admin_port"], Origin::File(path));
    assert_eq!(config.origins["server.debug"], Origin::Default);

    sources.flags.clear();
    assert_eq!(Config::load(&sources).expect("good").server.port, 2);
    sources.environment.remove("STREAMSPACE_SERVER_PORT");
    assert_eq!(Config::load(&sources).expect("good").server.port, 3, "the published variable");
    sources.environment.remove("PORT");
    assert_eq!(Config::load(&sources).expect("good").server.port, 1);
}

#[test]
fn of_two_published_variables_the_first_wins() {
    let mut sources =
        environment(&[("SMTP_USER", "b"), ("SMTP_USERNAME", "a"), ("SMTP_PASS", "correct horse")]);
    let config = Config::load(&sources).expect("good");
    assert_eq!(config.mail.username.as_deref(), Some("a"));
    assert_eq!(config.mail.password, Some("correct horse".into()));
    sources.environment.insert("SMTP_USERNAME".to_owned(), String::new());
    let config = Config::load(&sources).expect("good");
    assert_eq!(config.mail.username.as_deref(), Some("b"));
    assert_eq!(config.origins["mail.username"], Origin::Environment("SMTP_USER".to_owned()));
}

#[test]
fn yaml_says_the_same_as_toml() {
    let (_folder, path) = file(
        "c.yaml",
        "jobs:\n  queues: [snapshots, mail]\n  lease: 4s\nserver:\n  debug: true\nredis:\n  url:\n",
    );
    let config = Config::load(&Sources { file: Some(path), ..Default::default() }).expect("good");
    assert_eq!(config.jobs.queues, Some(vec!["snapshots".to_owned(), "mail".to_owned()]));
    assert!(config.server.debug);
    assert!(config.jobs.heartbeat < config.jobs.lease / 2);
}

#[test]
fn every_problem_is_named_at_once() {
    let (_folder, path) = file("c.toml", "[server]\nprot = 1\n[kube]\nx = 1\n[log]\nlevel = \"loud\"\n");
    let mut sources = environment(&[
        ("STREAMSPACE_SERVER_PROT", "1"),
        ("STREAMSPACE_JOBS_LEASE", "2s"),
        ("STREAMSPACE_DATABASE_URL", "mysql://root:hunter2@x"),
        ("STREAMSPACE_TEST_ANYTHING", "1"),
        ("STREAMSPACE_URL", "http://x"),
        ("STREAMSPACE_API_KEY", "sk_x"),
        ("STREAMSPACE_CONFIG", "x.toml"),
        ("PORT", "many"),
    ]);
    sources.file = Some(path.clone());
    let path = path.display();
    assert_eq!(
        problems(&sources),
        [
            "server.port (from PORT): expected a port (0 to 65535), got \"many\"".to_owned(),
            format!("log.level (from {path}): expected a level such as `info`, or levels by module such as `info,streamspace_queue=debug`, got \"loud\""),
            format!("kube.x (from {path}): unknown"),
            format!("server.prot (from {path}): unknown; did you mean server.port?"),
            "STREAMSPACE_SERVER_PROT: unknown; did you mean STREAMSPACE_SERVER_PORT?".to_owned(),
            "jobs.lease (from STREAMSPACE_JOBS_LEASE): expected at least 3s: a pause of the network would lose every job".to_owned(),
            "database.url (from STREAMSPACE_DATABASE_URL): expected postgres://user:password@host/name".to_owned(),
        ]
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let (_folder, path) = file("c.toml", "[server");
    assert!(problems(&Sources { file: Some(path), ..Default::default() })[0].starts_with("--config (from "));
    let (_folder, path) = file("c.json", "{}");
    assert!(
        problems(&Sources { file: Some(path), ..Default::default() })[0].contains(".toml, .yaml or .yml")
    );
    let (_folder, path) = file("c.toml", "server = 1\n");
    assert!(problems(&Sources { file: Some(path), ..Default::default() })[0].contains("expected a section"));
}

#[test]
fn a_file_that_cannot_be_parsed_names_the_place_and_shows_no_secret() {
    for (name, text, place) in [
        ("c.toml", "[database]\npassword = \"hunter2\n", "line 2, column "),
        ("c.toml", "[database]\npassword = hunter2\n", "line 2, column "),
        ("c.toml", "[database]\npassword = 'x'\npassword = 'hunter2'\n", "line 3, column "),
        ("c.yaml", "database:\n  password: \"hunter2\n", "line "),
        ("c.yaml", "database:\n  password: !!int hunter2\n", "line 2, column "),
        ("c.yaml", "database:\n  password: x\n  password: hunter2: x\n", "line "),
    ] {
        let (_folder, path) = file(name, text);
        let found = problems(&Sources { file: Some(path), ..Default::default() }).concat();
        assert!(found.contains(place) && !found.contains("hunter2"), "{text:?}: {found}");
    }
}

#[test]
fn heartbeats_fit_into_the_lease() {
    let config = Config::load(&environment(&[("STREAMSPACE_JOBS_LEASE", "3s")])).expect("good");
    assert_eq!(config.jobs.heartbeat, Duration::from_secs(1));
    let sources = environment(&[("STREAMSPACE_JOBS_LEASE", "6s"), ("STREAMSPACE_JOBS_HEARTBEAT", "3s")]);
    assert!(problems(&sources)[0].starts_with("jobs.heartbeat"));
}

#[test]
fn production_refuses_what_development_allows() {
    let sources = environment(&[
        ("STREAMSPACE_SERVER_ENVIRONMENT", "production"),
        ("STREAMSPACE_SERVER_DEBUG", "true"),
        ("STREAMSPACE_DATABASE_URL", "postgres://u:changeme-please@h/d"),
        ("STREAMSPACE_REDIS_URL", "redis://:short@h"),
    ]);
    let found = problems(&sources);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("server.debug"));
    assert!(found[1].contains("the secret is an example's") && !found[1].contains("changeme"));
    assert!(found[2].starts_with("redis.url"));
    let mut sources = sources;
    sources.environment.insert("STREAMSPACE_SERVER_ENVIRONMENT".to_owned(), "development".to_owned());
    assert_eq!(Config::load(&sources).expect("allowed").weak_secrets().len(), 2);
}

#[test]
fn what_is_shown_hides_secrets() {
    let config =
        Config::load(&environment(&[("STREAMSPACE_DATABASE_URL", "postgres://u:hunter2hunter2@h/d")]))
            .expect("good");
    let shown = format!("{:?} {config:?}", config.effective());
    assert!(!shown.contains("hunter2"), "{shown}");
    let effective = config.effective();
    assert_eq!(effective.len(), Config::describe().len());
    let url = effective.iter().find(|line| line.key == "database.url").expect("the key");
    assert_eq!(url.value.as_deref(), Some("[hidden]"));
    assert_eq!(url.origin.to_string(), "STREAMSPACE_DATABASE_URL");
}

#[test]
fn debugging_logs_in_detail_unless_a_level_is_set() {
    let level = |variables: &[(&str, &str)]| {
        Config::load(&environment(variables)).expect("good").log.level.to_string()
    };
    let debug = ("STREAMSPACE_SERVER_DEBUG", "true");
    assert_eq!(level(&[debug]), "info,streamspace=debug");
    assert_eq!(level(&[debug, ("STREAMSPACE_LOG_LEVEL", "warn")]), "warn");
}

#[test]
fn a_limit_lets_something_through() {
    for key in ["API_KEY_PER_HOUR", "USER_PER_MINUTE", "ADDRESS_PER_MINUTE"] {
        let found = problems(&environment(&[(&format!("STREAMSPACE_LIMITS_{key}"), "0")]));
        assert!(found.len() == 1 && found[0].ends_with("expected at least 1"), "{found:?}");
    }
}

#[test]
fn origins_are_told_in_a_file_or_in_one_text() {
    let (_folder, path) =
        file("c.toml", "[server]\ncors_origins = [\"https://a.example\", \"http://b:3000\"]\n");
    let config = Config::load(&Sources { file: Some(path), ..Default::default() }).expect("good");
    assert_eq!(config.server.cors_origins, "https://a.example,http://b:3000".parse().ok());
    let found = problems(&environment(&[("STREAMSPACE_SERVER_CORS_ORIGINS", "https://a.example,*")]));
    assert!(found[0].contains("or `*` alone"), "{found:?}");
}

#[test]
fn variables_without_effect_are_said() {
    let config = Config::load(&environment(&[("GIN_MODE", "release")])).expect("good");
    assert_eq!(config.notices, ["GIN_MODE has no effect: use log.level and log.format"]);
}

#[test]
fn every_key_can_be_set_by_its_variable() {
    for key in Config::describe().into_iter().filter(|key| !key.in_file_only) {
        let found = problems(&environment(&[(&key.variable(), "\u{0}"), ("STREAMSPACE_LOG_LEVEL", "loud")]));
        assert!(found.iter().all(|line| !line.contains(": unknown")), "{found:?}");
    }
}

#[test]
fn a_list_of_tables_stands_in_the_file_alone() {
    let toml = "[[auth.oidc]]\nname = 'acme'\nprovider_url = 'https://id.example'\nclient_id = 'x'\nclient_secret = 'hunter2hunter2'\ntenant = 'acme'\n";
    let yaml = "auth:\n  oidc:\n  - name: acme\n    provider_url: https://id.example\n    client_id: x\n    client_secret: hunter2hunter2\n    tenant: acme\n";
    for (name, text) in [("c.toml", toml), ("c.yaml", yaml)] {
        let (_folder, path) = file(name, text);
        let config = Config::load(&Sources { file: Some(path), ..Default::default() }).expect("good");
        assert_eq!(config.auth.oidc.0[0].name, "acme", "{name}");
        assert!(!format!("{config:?} {:?}", config.effective()).contains("hunter2"));
    }
    let (_folder, path) = file("c.toml", &toml.replace("name", "nmae"));
    let found = problems(&Sources { file: Some(path), ..Default::default() }).concat();
    assert!(
        found.starts_with("auth.oidc (from ") && found.ends_with("): [0].nmae: unknown field `nmae`"),
        "{found}"
    );
    let found = problems(&environment(&[("STREAMSPACE_AUTH_OIDC", "[]")])).concat();
    assert!(found.starts_with("STREAMSPACE_AUTH_OIDC: unknown"), "{found}");
}
