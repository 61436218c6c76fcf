use super::*;

const FILE: &str = "provisor.toml";

fn parse(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let environment = variables.iter().copied().collect();
    Config::parse(text, Path::new(FILE), &environment).map_err(|error| error.to_string())
}

/// The default with every setting made that its lines show.
fn every_setting() -> String {
    let made = |line: &'static str| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line);
    DEFAULT.lines().map(made).collect::<Vec<_>>().join("\n")
}

fn smtp() -> Smtp {
    Smtp {
        host: "smtp.example.com".to_owned(),
        port: 465,
        tls: SmtpTls::Tls,
        username: Some("provisor".to_owned()),
        password: Some(SecretRef::Env("SMTP_PASSWORD".to_owned())),
    }
}

fn server() -> Server {
    let mounts = PROVIDERS.iter().map(|provider| (provider.id.to_owned(), provider.server.mount().parse().unwrap())).collect();
    Server { metrics: Some("127.0.0.1:8081".parse().unwrap()), mounts, ..Server::default() }
}

fn summary() -> Summary {
    Summary {
        at: TimeOfDay::default(),
        mail: Some(Recipient("ops@example.com".parse().unwrap())),
        callback: Some("ops".to_owned()),
    }
}

#[test]
fn a_summary_goes_somewhere() {
    let with = |text: &str| {
        let callbacks = "[callbacks]\na = { kind = 'whmcs', url = 'https://a.example', secret = { env = 'A' } }\n\
                         b = { kind = 'signed', url = 'https://b.example', secret = { env = 'B' } }";
        parse(&format!("[gateway.summary]\n{text}\n{callbacks}"), &[])
    };
    for good in ["mail = 'ops@example.com'", "callback = 'b'", "at = '23:59'\nmail = 'ops@example.com'"] {
        with(good).unwrap();
    }
    for bad in ["", "at = '06:00'", "callback = 'a'", "callback = 'c'", "mail = 'ops'", "mail = 'a@b.example\\nBcc: c'"] {
        assert!(with(bad).is_err(), "{bad}");
    }
    for bad in ["6", "24:00", "06:00:00", "06:60", "6:00", "noon"] {
        assert!(with(&format!("mail = 'ops@example.com'\nat = '{bad}'")).is_err(), "{bad}");
    }
}

#[test]
fn each_api_has_a_place_of_its_own() {
    let [one, other] = [&PROVIDERS[0], &PROVIDERS[1]];
    let mounts = |lines: &[(&str, &str)]| {
        let lines: Vec<_> = lines.iter().map(|(id, mount)| format!("{id} = '{mount}'")).collect();
        parse(&format!("[server.mounts]\n{}", lines.join("\n")), &[]).map(|config| config.server.unwrap().mounts)
    };
    for (good, prefix) in [("/", ""), ("/a", "/a"), ("/cp/reseller-api_1.2~", "/cp/reseller-api_1.2~")] {
        assert_eq!(mounts(&[(one.id, good)]).unwrap()[one.id].prefix(), prefix);
    }
    // They may stand below each other.
    mounts(&[(one.id, "/"), (other.id, "/a")]).unwrap();
    mounts(&[(one.id, "/a"), (other.id, "/a/b")]).unwrap();
    mounts(&[(one.id, "/a/b"), (other.id, "/a")]).unwrap();
    for bad in
        ["", "a", "/a/", "//", "/a//b", "/a/../b", "/a/.", "/a?b", "/a#b", "/a b", "/a%20b", "/\u{e9}", "https://a.example"]
    {
        let error = mounts(&[(one.id, bad)]).unwrap_err();
        assert!(error.starts_with(&format!("{FILE}:2:")) && error.contains(": no path such as"), "{bad}: {error}");
    }
    for same in [&[(one.id, "/a"), (other.id, "/a")][..], &[(other.id, one.server.mount())]] {
        let error = mounts(same).unwrap_err();
        assert!(error.ends_with("/, which does not go together"), "{error}");
    }
    assert_eq!(
        mounts(&[("nobody", "/a")]).unwrap_err(),
        format!("{FILE}:2:1: server.mounts.nobody: there is no such provider; known here: {}, {}", one.id, other.id)
    );
}

#[test]
fn the_file_is_the_default() {
    assert_eq!(parse(DEFAULT, &[]).unwrap(), Config::default());
    let shown = parse(&every_setting(), &[]).unwrap();
    assert_eq!(shown.gateway, Some(Gateway { summary: Some(summary()), ..Gateway::default() }));
    assert_eq!(shown.server, Some(server()));
    assert_eq!((shown.store.url, shown.plugin), (StoreUrl::default(), Plugin::default()));
    assert_eq!(shown.store.password, Some(SecretRef::Env("PROVISOR_DATABASE_PASSWORD".into())));
    assert_eq!(shown.webhooks, Webhooks::default());
    assert_eq!(shown.mail, Mail { smtp: Some(smtp()), ..Mail::default() });
    let profile = &shown.profiles["kh-main"];
    assert_eq!(profile.secret, SecretRef::Env("KH_SECRET".into()));
    assert_eq!(profile.key, Some(Value::Reference(SecretRef::Env("KH_KEY".into()))));
    assert!(!profile.allow_private);
    assert_eq!(shown.profiles["gp-main"].secret, SecretRef::File("gp.key".into()));
}

#[test]
fn the_file_shows_every_setting() {
    let shown: toml::Table = toml::from_str(&every_setting()).unwrap();
    let store = Store { password: Some(SecretRef::Env(String::new())), ..Store::default() };
    let mail = Mail { smtp: Some(smtp()), ..Mail::default() };
    let gateway = Some(Gateway { summary: Some(summary()), ..Gateway::default() });
    let server = Some(server());
    let config = Config { gateway, server, mail, store, ..Config::default() };
    let known = toml::Table::try_from(&config).unwrap();
    for (section, settings) in &known {
        same_keys(section, settings, &shown[section]);
    }
}

fn same_keys(at: &str, known: &toml::Value, shown: &toml::Value) {
    if let (Some(known), Some(shown)) = (known.as_table(), shown.as_table()) {
        assert_eq!(known.keys().collect::<Vec<_>>(), shown.keys().collect::<Vec<_>>(), "in {at}");
        known.iter().for_each(|(key, value)| same_keys(&format!("{at}.{key}"), value, &shown[key]));
    }
}

#[test]
fn the_rules_of_the_default_are_those_of_the_providers() {
    assert_eq!(format!("{:?}", Config::default().rules()), format!("{:?}", Rules::default()));
}

#[test]
fn the_rules_follow_the_file() {
    let text = "[server]\nlock = { mode = 'faithful', failures = 0, window_s = 1, duration_s = 2 }\n\
                fulfilment.delay_ms = 20\ngp = { freshness = false, renew_dedupe = false }";
    let rules = parse(text, &[]).unwrap().rules();
    assert_eq!((rules.lock.mode, rules.lock.failures, rules.lock.window_s, rules.lock.duration_s), (LockMode::Faithful, 0, 1, 2));
    assert_eq!((rules.fulfilment_delay.as_millis(), rules.freshness, rules.renew_dedupe), (20, false, false));
}

#[test]
fn targets_are_a_list_or_words() {
    let targets = |config: &Config| config.rules().webhooks.allowed.iter().map(ToString::to_string).collect::<Vec<_>>();
    for (text, variables) in [
        ("[webhooks]\nallow_targets = ['127.0.0.1:9000', 'localhost:80']", &[][..]),
        ("", &[("PROVISOR_WEBHOOKS__ALLOW_TARGETS", "['127.0.0.1:9000', 'localhost:80']")]),
        ("", &[("PROVISOR_WEBHOOKS__ALLOW_TARGETS", r#"["127.0.0.1:9000", "localhost:80"]"#)]),
        ("", &[("PROVISOR_WEBHOOKS__ALLOW_TARGETS", "127.0.0.1:9000, localhost:80")]),
    ] {
        let config = parse(text, variables).unwrap();
        assert_eq!(targets(&config), ["127.0.0.1:9000", "localhost:80"], "{text} {variables:?}");
        assert_eq!(config.rules().webhooks.ports, [443]);
    }
    assert_eq!(parse("[webhooks]\nports = [443, 8443]", &[]).unwrap().rules().webhooks.ports, [443, 8443]);
}

#[test]
fn mail_needs_a_sender_and_a_password_an_encrypted_way() {
    let mail = |text: &str| parse(text, &[]).map(|config| config.mail);
    assert_eq!(mail("[mail.smtp]\nhost = 'a'").unwrap().smtp.unwrap().port, 465);
    for (text, error) in [
        ("[mail]\nfrom = 'nobody'", "provisor.toml:2:1: mail.from: not an address such as"),
        ("[mail.smtp]\nhost = 'me:hunter2@a'", "provisor.toml:2:1: mail.smtp.host: a mail server's name"),
        ("[mail.smtp]\nport = 25", "provisor.toml:1:7: mail.smtp: missing field `host`"),
        ("[mail.smtp]\nhost = 'a'\nusername = 'u'", "provisor.toml:3:1: mail.smtp.username: "),
        ("[mail.smtp]\nhost = 'a'\nusername = 'u'\npassword = { env = 'P' }\ntls = 'none'", "provisor.toml:5:1: mail.smtp.tls: "),
        ("[mail.smtp]\nhost = 'a'\npassword = 'hunter2'", "provisor.toml:3:1: mail.smtp.password: a secret is never written"),
    ] {
        let message = mail(text).unwrap_err();
        assert!(message.starts_with(error), "{text}\n  gave   {message}\n  wanted {error}");
    }
}

#[test]
fn a_section_turns_its_wing_on() {
    assert!(parse("[gateway]", &[]).unwrap().gateway.is_some());
    assert!(parse("[server.limits]\nper_ip_per_minute = 0", &[]).unwrap().server.is_some());
    assert!(parse("", &[("PROVISOR_SERVER__LISTEN", "[::1]:9")]).unwrap().server.is_some());
}

const PROFILE: &str = "[profiles.x]\nprovider = 'kernelhost'\nbase_url = 'https://api.example.com'\nsecret = { env = 'S' }\n";

#[test]
fn an_error_names_file_line_column_and_key() {
    for (text, error) in [
        ("[server]\nlisten = ", "provisor.toml:2:10: "),
        ("[server]\n\nlistn = 'x'", "provisor.toml:3:1: server.listn: unknown key; did you mean `listen`?"),
        ("[sever]", "provisor.toml:1:2: sever: unknown key; did you mean `server`?"),
        (
            "[server.limits]\nzzzzzzzzz = 1",
            "provisor.toml:2:1: server.limits.zzzzzzzzz: unknown key; known here: per_ip_per_minute",
        ),
        ("[server]\n  lock.failures = -1", "provisor.toml:2:8: server.lock.failures: expected a number from 0 to 4294967295"),
        ("[server]\nlock.failures = '9'", "provisor.toml:2:6: server.lock.failures: expected a number from 0 to 4294967295"),
        ("[profiles]\nsecret = 'x'", "provisor.toml:2:1: profiles.secret: expected a section"),
        ("[server.lock]\nmode = 'strict'", "provisor.toml:2:1: server.lock.mode: expected `scoped` or `faithful`"),
        ("[server]\nlisten = '8080'", "provisor.toml:2:1: server.listen: invalid socket address"),
        ("[gateway]\nlisten = '8080'", "provisor.toml:2:1: gateway.listen: neither an address and port"),
        ("[gateway]\nlisten = 'unix:'", "provisor.toml:2:1: gateway.listen: after `unix:` comes the path"),
        ("[server]\ntrusted_proxies = ['10.0.0.0/8', 'proxy']", "provisor.toml:2:1: server.trusted_proxies: neither"),
        ("[store]\nurl = 'postgres://u:p@h/d'", "provisor.toml:2:1: store.url: no password belongs into the address"),
        ("[webhooks]\nallow_targets = ['127.0.0.1']", "provisor.toml:2:1: webhooks.allow_targets: a target is a host"),
        ("[webhooks]\nallow_targets = [1]", "provisor.toml:2:1: webhooks.allow_targets: a target is a text"),
        ("[store]\nurl = 'provisor.db'", "provisor.toml:2:1: store.url: a store is `sqlite:PATH`"),
        ("[profiles.x]\nprovider = 'kernelhost'", "provisor.toml:1:11: profiles.x: missing field `secret`"),
        (&format!("{PROFILE}extra = 1"), "provisor.toml:5:1: profiles.x.extra: unknown key; known here: provider, base_url"),
        (&PROFILE.replace("https", "http"), "provisor.toml:3:1: profiles.x.base_url: plain http shows passwords"),
        (&PROFILE.replace("https://", ""), "provisor.toml:3:1: profiles.x.base_url: no web address"),
        (&PROFILE.replace("https", "ftp"), "provisor.toml:3:1: profiles.x.base_url: a web address begins with `https://`"),
        (&PROFILE.replace(".com", ".com/?a"), "provisor.toml:3:1: profiles.x.base_url: an API's address has no `?`"),
        (&PROFILE.replace("profiles.x", "profiles.'a b'"), "provisor.toml:1:11: profiles.a b: a profile's name is"),
        (&format!("{PROFILE}settings = {{ a = [] }}"), "provisor.toml:5:14: profiles.x.settings.a: a setting is a text"),
    ] {
        let message = parse(text, &[]).unwrap_err();
        assert!(message.starts_with(error), "{text}\n  gave   {message}\n  wanted {error}");
    }
}

#[test]
fn a_secret_in_the_file_is_refused_and_not_repeated() {
    for wrong in
        ["'hunter2'", "{ value = 'hunter2' }", "['hunter2']", "{ env = 'hunter2', file = 'hunter2' }", "{ env = ['hunter2'] }"]
    {
        let message = parse(&PROFILE.replace("{ env = 'S' }", wrong), &[]).unwrap_err();
        assert!(message.starts_with("provisor.toml:4:1: profiles.x.secret: a secret is never written"), "{wrong}: {message}");
        assert!(!message.contains("hunter2"), "{message}");
    }
    for text in [
        format!("{PROFILE}settings = {{ webhook_secret = 'hunter2' }}"),
        PROFILE.replace("https://", "https://me:hunter2@"),
        "[store]\nurl = 'postgres://me:hunter2@h/d'".to_owned(),
        "[store]\npassword = 'hunter2'".to_owned(),
        PROFILE.replace("{ env = 'S' }", "'hunter2"),
        PROFILE.replace("secret = { env = 'S' }", "scret = 'hunter2'"),
        "[server.mounts]\nkey = 'hunter2'".to_owned(),
        "[profiles]\nsecret = 'hunter2, expected'".to_owned(),
        "[callbacks]\nsecret = 'hunter2'".to_owned(),
        "profiles = 'hunter2'".to_owned(),
        "server.lock.failures = 'hunter2'".to_owned(),
        "server.lock.mode = 'hunter2'".to_owned(),
        "server.metrics = 'hunter2'".to_owned(),
        "server.trusted_proxies = ['hunter2']".to_owned(),
        "gateway.summary.mail = 'hunter2'".to_owned(),
        "mail.from = 'hunter2'".to_owned(),
        "webhooks.allow_targets = ['http://me:hunter2@127.0.0.1:9000']".to_owned(),
        PROFILE.replace("'S'", "'hunter2-'"),
        PROFILE.replace("example.com", "example.com/me:hunter2@x"),
        format!("{PROFILE}settings = {{ Api_Key = 'hunter2' }}"),
    ] {
        let message = parse(&text, &[]).unwrap_err();
        assert!(!message.contains("hunter2"), "{message}");
    }
    // Numbers are read by the parser of TOML itself where they have too many digits.
    for digits in ["4711", "48151623421234567890123"] {
        let message = parse(&PROFILE.replace("{ env = 'S' }", digits), &[]).unwrap_err();
        assert!(message.starts_with("provisor.toml:4:") && !message.contains(digits), "{message}");
    }
    let message = parse(PROFILE, &[("PROVISOR_PROFILES__X__SECRET", "hunter2")]).unwrap_err();
    assert!(
        message.starts_with("the environment variable PROVISOR_PROFILES__X__SECRET: profiles.x.secret: a secret is never"),
        "{message}"
    );
    assert!(!message.contains("hunter2"), "{message}");
}

#[test]
fn the_environment_overrides() {
    let config = parse(
        &PROFILE.replace("profiles.x", "profiles.kh-Main"),
        &[
            ("PROVISOR_SERVER__LISTEN", "0.0.0.0:81"),
            ("PROVISOR_SERVER__LIMITS__PER_IP_PER_MINUTE", "0"),
            ("PROVISOR_SERVER__GP__FRESHNESS", "false"),
            ("PROVISOR_SERVER__TRUSTED_PROXIES", "['10.0.0.1', '::/0']"),
            ("PROVISOR_PROFILES__KH_MAIN__SECRET", "{ file = '/s' }"),
            ("PROVISOR_PROFILES__KH_MAIN__SETTINGS__PRICE_10K", "4.90"),
            ("PROVISOR_PROFILES__GP_NEW__PROVIDER", "gp"),
            ("PROVISOR_PROFILES__GP_NEW__BASE_URL", "https://api.example.com/v1/"),
            ("PROVISOR_PROFILES__GP_NEW__SECRET", "{ env = 'G' }"),
            ("PROVISOR_LOG", "debug"),
            ("OTHER__THING", "ignored"),
        ],
    )
    .unwrap();
    let server = config.server.unwrap();
    assert_eq!(
        (server.listen.to_string().as_str(), server.limits.per_ip_per_minute, server.gp.freshness),
        ("0.0.0.0:81", 0, false)
    );
    assert_eq!(server.trusted_proxies.iter().map(ToString::to_string).collect::<Vec<_>>(), ["10.0.0.1/32", "::/0"]);
    let profile = &config.profiles["kh-Main"];
    assert_eq!(profile.secret, SecretRef::File("/s".into()));
    assert_eq!(profile.settings["price_10k"], Value::Literal("4.90".into()));
    assert_eq!(config.profiles["gp_new"].base_url.as_ref().map(BaseUrl::as_str), Some("https://api.example.com/v1"));
}

#[test]
fn an_override_that_does_not_fit_is_named() {
    for (variable, value, error) in [
        ("PROVISOR_SERVER__LISTN", "1", "server.listn: unknown key; did you mean `listen`?"),
        ("PROVISOR_SERVER__GP__FRESHNESS", "maybe", "server.gp.freshness: expected a boolean"),
        ("PROVISOR_SERVER__", "1", "names no key"),
        ("PROVISOR_STORE__URL__X", "1", "`store.url` is a value, not a section"),
        ("PROVISOR_PROFILES__NEW__PROVIDER", "gp", "profiles.new: missing field `secret`"),
        ("PROVISOR_PROFILES__A_B__PROVIDER", "gp", "means `a-b` as well as `a_b`"),
    ] {
        let text = format!("[store]\nurl = 'sqlite:x'\n{}{}", PROFILE.replace(".x", ".a-b"), PROFILE.replace(".x", ".a_b"));
        let message = parse(&text, &[(variable, value)]).unwrap_err();
        assert!(message.starts_with(&format!("the environment variable {variable}: {error}")), "{message}");
    }
    let message = parse("\n[server]\nlistn = 1", &[("PROVISOR_STORE__URL", "sqlite:x")]).unwrap_err();
    assert!(message.starts_with("provisor.toml:3:1: server.listn: "), "{message}");
}

#[test]
fn secrets_are_read_when_needed() {
    use secrecy::ExposeSecret;

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(FILE);
    let text = format!("{PROFILE}key = 'kh_live_X'\nsettings = {{ a = true, b = 4.5, c = {{ file = 'c' }} }}");
    std::fs::write(&file, text).unwrap();
    let environment: Environment = [("S", "sesame")].into_iter().collect();
    let profile = Config::load(&file, &environment).unwrap().profiles.remove("x").unwrap();
    let read = || profile.credentials(&environment).map_err(|error| error.to_string());
    assert!(read().unwrap_err().ends_with("/c cannot be read"));
    for (written, secret) in [("s", "s"), ("s\n", "s"), ("s\r\n", "s"), ("s\n\n", "s\n"), (" s ", " s ")] {
        std::fs::write(folder.path().join("c"), written).unwrap();
        let credentials = read().unwrap();
        let settings: Vec<_> = credentials.settings.values().map(ExposeSecret::expose_secret).collect();
        assert_eq!(settings, ["true", "4.5", secret]);
        assert_eq!((credentials.key.as_str(), credentials.secret.expose_secret()), ("kh_live_X", "sesame"));
        assert!(!format!("{credentials:?} {environment:?}").contains("sesame"));
    }
    for (written, error) in [("\n", "is empty"), (&"x".repeat(70_000), "is over 64 KiB, which no secret is")] {
        std::fs::write(folder.path().join("c"), written).unwrap();
        assert!(read().unwrap_err().ends_with(error));
    }
    let error = profile.credentials(&Environment::default()).unwrap_err().to_string();
    assert_eq!(error, "the environment variable S is not set");
    let error = profile.credentials(&[("S", "")].into_iter().collect()).unwrap_err().to_string();
    assert_eq!(error, "the environment variable S is empty");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Config::load(Path::new("absent/provisor.toml"), &Environment::default()).unwrap_err();
    assert_eq!(error.to_string(), "cannot read the configuration absent/provisor.toml");
}

#[test]
fn what_is_shown_can_be_read_again() {
    let config = parse(&every_setting(), &[]).unwrap();
    assert_eq!(parse(&toml::to_string(&config).unwrap(), &[]).unwrap(), config);
}
