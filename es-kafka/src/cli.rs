//! The command line: from arguments to settings and an action.

mod output;

pub(crate) use output::Output;

use crate::settings::{self, KEYS, Settings, SettingsError, Sources};
use crate::topics::{group_key, topic_key};
use clap::{Arg, ArgAction, ArgMatches, Command};
use es_core::record::Role;
use es_core::topology::{Kind, Topology};

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Action {
    /// Process until told to stop.
    Run,
    /// Compare the topics, and perhaps mend them.
    Topics(TopicsAction),
    /// Show the state of one aggregate.
    StateGet {
        /// Its id.
        id: String,
    },
    /// Show the state of many.
    StateList {
        /// Only ids that start so.
        prefix: String,
        /// At most so many.
        limit: usize,
    },
    /// Show the history of one aggregate.
    Events {
        /// Its id.
        id: String,
    },
    /// Compare store, changelog and the fold of the log.
    Verify,
    /// Copy a group's committed offsets to another.
    CopyOffsets {
        /// From this group.
        from: String,
        /// To this one.
        to: String,
    },
    /// Show the settings.
    Config,
    /// A subcommand that the program added.
    Own(String, ArgMatches),
    /// What the program does without a subcommand.
    Default(ArgMatches),
}

/// What `topics` is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TopicsAction {
    Plan,
    Apply,
    Check,
}

/// A command line that was read.
#[derive(Debug)]
pub(crate) struct Invocation {
    pub(crate) action: Action,
    pub(crate) settings: Settings,
    /// The component that `--component` names.
    pub(crate) component: Option<String>,
    pub(crate) json: bool,
}

/// A command line that was not read, or that asks for help.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// clap's message, for stdout (help) or stderr.
    Usage(Box<clap::Error>),
    /// Settings that cannot be used.
    Settings(SettingsError),
}

/// What the program added to the grammar.
#[derive(Debug, Clone, Default)]
pub(crate) struct Own {
    /// Its subcommands.
    pub(crate) commands: Vec<Command>,
    /// What it does without a subcommand.
    pub(crate) default: Option<Command>,
    /// Its version.
    pub(crate) version: Option<String>,
}

/// Reads arguments (the program's name first) and environment.
pub(crate) fn parse(
    app: &str,
    components: &[Topology],
    own: &Own,
    arguments: impl IntoIterator<Item = std::ffi::OsString>,
    environment: Sources,
) -> Result<Invocation, Refusal> {
    let matches = command(app, components, own).try_get_matches_from(arguments).map_err(|e| Refusal::Usage(Box::new(e)))?;
    let Some((name, sub)) = matches.subcommand() else {
        let settings = sources(components, &matches, environment)?.resolve(app, components).map_err(Refusal::Settings)?;
        return Ok(Invocation { action: Action::Default(matches), settings, component: None, json: false });
    };
    let settings = sources(components, sub, environment)?.resolve(app, components).map_err(Refusal::Settings)?;
    let text = |matches: &ArgMatches, name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let mut last = sub;
    let action = match (name, sub.subcommand()) {
        ("run", _) => Action::Run,
        ("config", _) => Action::Config,
        ("verify", _) => Action::Verify,
        ("events", _) => Action::Events { id: text(sub, "id") },
        ("groups", Some((_, copy))) => {
            last = copy;
            Action::CopyOffsets { from: text(copy, "from"), to: text(copy, "to") }
        }
        ("state", Some(("get", get))) => {
            last = get;
            Action::StateGet { id: text(get, "id") }
        }
        ("state", Some((_, list))) => {
            last = list;
            Action::StateList { prefix: text(list, "prefix"), limit: *list.get_one("limit").expect("it has a default") }
        }
        ("topics", Some((what, topics))) => {
            last = topics;
            Action::Topics(match what {
                "plan" => TopicsAction::Plan,
                "apply" => TopicsAction::Apply,
                _ => TopicsAction::Check,
            })
        }
        _ => Action::Own(name.to_owned(), sub.clone()),
    };
    let given = |name: &str| matches!(last.try_contains_id(name), Ok(true));
    let component = given("component").then(|| text(last, "component"));
    let json = given("json") && last.get_flag("json");
    Ok(Invocation { action, settings, component, json })
}

/// The grammar.
pub(crate) fn command(app: &str, components: &[Topology], own: &Own) -> Command {
    let json = || Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print JSON, one value a line");
    let component = || {
        let names = components.iter().map(|c| c.component.clone()).collect::<Vec<_>>();
        let only = names.len() == 1;
        Arg::new("component")
            .long("component")
            .value_name("NAME")
            .value_parser(names)
            .hide(only)
            .help("The aggregate or table that is meant")
    };
    let id = || Arg::new("id").required(true).value_name("ID").help("The id: the record's key");
    let topics = |name: &'static str, about: &'static str| Command::new(name).about(about).arg(json());
    let built_in = [
        Command::new("run").about("Process until told to stop (SIGTERM, SIGINT)"),
        Command::new("topics")
            .about("The topics: what is there, and what should be")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(topics("plan", "Show what would be created and what is wrong"))
            .subcommand(topics("apply", "Create what is missing and mend what can be mended"))
            .subcommand(topics("check", "As `plan`; ends with exit code 1 when something is to be done")),
        Command::new("state")
            .about("The state: from the local store, or folded from the log where another process holds the store")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(Command::new("get").about("Show one state").arg(id()).arg(component()).arg(json()))
            .subcommand(
                Command::new("list")
                    .about("Show many states, in the order of their ids")
                    .arg(Arg::new("prefix").long("prefix").value_name("TEXT").help("Only ids that start with it"))
                    .arg(
                        Arg::new("limit")
                            .long("limit")
                            .value_name("N")
                            .default_value("100")
                            .value_parser(clap::value_parser!(usize))
                            .help("At most so many"),
                    )
                    .arg(component())
                    .arg(json()),
            ),
        Command::new("events")
            .about("The history of one aggregate: its events, and the state after each")
            .arg(id())
            .arg(component())
            .arg(json()),
        Command::new("verify")
            .about("Compare store, changelog and the fold of the log; ends with exit code 3 when they differ. Stop the application first")
            .arg(component())
            .arg(json()),
        Command::new("groups")
            .about("The groups by which processes share the partitions")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .subcommand(
                Command::new("copy-offsets")
                    .about("Copy the committed offsets of a component's input to another group, for one of another protocol or with other topics")
                    .long_about(
                        "Copy the committed offsets of a component's input from one group to another. Kafka lets no group change its protocol while it \
                         has members, and no streams group its topics. Stop all processes, copy, and name the new group by the setting \
                         `<component>.group`. Refused while either group has members, and where the new one has other offsets",
                    )
                    .arg(Arg::new("from").required(true).value_name("FROM").help("The group that has the offsets"))
                    .arg(Arg::new("to").required(true).value_name("TO").help("The group that gets them"))
                    .arg(component())
                    .arg(json()),
            ),
        Command::new("config").about("Show the settings in effect and where each comes from; secrets are hidden").arg(json()),
    ];
    let grammar = Command::new(app.to_owned())
        .subcommand_required(true)
        .arg_required_else_help(true)
        .version(version(own.version.as_deref()))
        .after_help(
            "Each setting can be given by flag, by environment variable (ES_ and the key in upper case, such as ES_COMMIT_INTERVAL) or by file \
             (TOML: commit.interval = \"50ms\"), in this order of precedence.\n\
             Exit codes: 0 all is well, 1 failed, 2 bad usage or configuration, 3 a verification found a difference.",
        )
        .subcommands(&own.commands)
        .subcommands(built_in);
    let grammar = match &own.default {
        None => grammar,
        Some(default) => {
            let grammar = grammar.subcommand_required(false).subcommand_negates_reqs(true).args(default.get_arguments());
            default.get_about().map_or(grammar.clone(), |about| grammar.about(about.clone()))
        }
    };
    setting_flags(components).fold(grammar, Command::arg)
}

/// What `--version` shows behind the name: the program's version, and this crate's.
fn version(own: Option<&str>) -> String {
    let crates = concat!("(es-kafka ", env!("CARGO_PKG_VERSION"), ")");
    own.map_or(crates.to_owned(), |own| format!("{own} {crates}"))
}

/// A flag per setting, understood before and behind a subcommand.
fn setting_flags(components: &[Topology]) -> impl Iterator<Item = Arg> {
    let flag = |key: &str| Arg::new(key.to_owned()).long(key.replace('.', "-")).value_name("VALUE").global(true).help_heading("Settings");
    let config = flag("config").value_name("FILE").help("The file of settings, TOML; or ES_CONFIG");
    let kafka = flag("kafka")
        .value_name("KEY=VALUE")
        .action(ArgAction::Append)
        .help("Any other setting of librdkafka, such as security.protocol=SASL_SSL. Passwords are best given by file or environment");
    let known = KEYS.iter().map(move |key| {
        let doc = key.doc.trim().trim_end_matches('.');
        flag(key.name).help(format!("{doc} [{}] [default: {}]", (key.kind)(), key.default))
    });
    let named = |c: &Topology| c.topics().map(|(role, name)| (topic_key(c, role), topic_help(c, role, name))).collect::<Vec<_>>();
    let group = |c: &Topology| Arg::new(group_key(c)).help(format!("The group of `{}` [default: {}]", c.component, c.group()));
    let groups = components.iter().map(group).map(|arg| {
        let long = arg.get_id().as_str().replace('.', "-");
        arg.long(long).value_name("GROUP").global(true).hide_short_help(true).help_heading("Names of groups")
    });
    let groups: Vec<_> = groups.collect();
    let topics: Vec<_> = components.iter().flat_map(named).collect();
    let topics = topics.into_iter().map(|(key, help)| {
        Arg::new(key.clone())
            .help(help)
            .long(key.replace('.', "-"))
            .value_name("TOPIC")
            .global(true)
            .hide_short_help(true)
            .help_heading("Names of topics")
    });
    [config, kafka].into_iter().chain(known).chain(topics).chain(groups)
}

/// What the flag that names a topic is for.
fn topic_help(component: &Topology, role: Role, default: &str) -> String {
    let (name, kind) = (&component.component, component.kind);
    let topic = match role {
        Role::Events if kind == Kind::Table => format!("The events that the table `{name}` reads"),
        Role::Commands => format!("The commands that `{name}` takes"),
        Role::Events => format!("The events that `{name}` writes"),
        Role::Outcomes => format!("What came of commands to `{name}` that left no event"),
        Role::Changelog => format!("The newest states of `{name}`, from which its store is restored"),
        Role::DeadLetters => format!("What `{name}` could not read or process"),
    };
    format!("{topic} [default: {default}]")
}

/// The flags that were given, beside the environment.
fn sources(components: &[Topology], matches: &ArgMatches, environment: Sources) -> Result<Sources, Refusal> {
    let mut sources = environment;
    let values = |key: &str| matches.get_many::<String>(key).into_iter().flatten().cloned().collect::<Vec<_>>();
    sources.file = values("config").pop().map(Into::into).or(sources.file);
    let keys = KEYS.iter().map(|key| key.name.to_owned()).chain(settings::topic_keys(components)).chain(components.iter().map(group_key));
    for key in keys {
        sources.flags.extend(values(&key).into_iter().map(|value| (key.clone(), value)));
    }
    for pair in values("kafka") {
        let Some((key, value)) = pair.split_once('=') else {
            let message = "the flag `--kafka` takes KEY=VALUE, such as security.protocol=SASL_SSL\n";
            return Err(Refusal::Usage(Box::new(clap::Error::raw(clap::error::ErrorKind::InvalidValue, message))));
        };
        sources.flags.push((format!("kafka.{}", key.trim()), value.to_owned()));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::account;

    fn demo() -> Own {
        Own { commands: vec![Command::new("demo")], ..Own::default() }
    }

    fn read(line: &str) -> Result<Invocation, Refusal> {
        read_with(&demo(), line)
    }

    fn read_with(own: &Own, line: &str) -> Result<Invocation, Refusal> {
        let environment = vec![("ES_PARTITIONS".to_owned(), "6".to_owned()), ("ES_MEMORY_LIMIT".to_owned(), "1GiB".to_owned())];
        let arguments = line.split(' ').map(Into::into);
        parse("bank", &[account("bank")], own, arguments, Sources { environment, ..Sources::default() })
    }

    #[test]
    fn flags_may_stand_before_and_behind_the_subcommand() {
        for line in ["bank run --partitions 8 --kafka client.id=x", "bank --partitions 8 --kafka client.id=x run"] {
            let invocation = read(line).unwrap();
            assert!(matches!(invocation.action, Action::Run));
            let settings = invocation.settings;
            assert_eq!((settings.partitions, settings.memory_limit, settings.kafka["client.id"].as_str()), (8, 1 << 30, "x"));
        }
    }

    #[test]
    fn every_action_is_read() {
        let shown = |line: &str| {
            let invocation = read(line).unwrap();
            format!("{:?} {}", invocation.action, invocation.json)
        };
        assert_eq!(shown("bank topics apply --json"), "Topics(Apply) true");
        assert_eq!(shown("bank state get acct-1"), "StateGet { id: \"acct-1\" } false");
        assert_eq!(shown("bank state list --prefix a --limit 3"), "StateList { prefix: \"a\", limit: 3 } false");
        assert_eq!(shown("bank events acct-1 --json"), "Events { id: \"acct-1\" } true");
        assert_eq!(shown("bank verify"), "Verify false");
        assert_eq!(shown("bank groups copy-offsets a b"), "CopyOffsets { from: \"a\", to: \"b\" } false");
        assert!(matches!(read("bank demo").unwrap().action, Action::Own(name, _) if name == "demo"));
        assert_eq!(read("bank verify --component account").unwrap().component.as_deref(), Some("account"));
    }

    #[test]
    fn a_program_may_do_something_without_a_subcommand() {
        let own =
            Own { default: Some(Command::new("import").about("Imports").arg(Arg::new("from").long("from").required(true))), ..demo() };
        let invocation = read_with(&own, "bank --from x --partitions 8").unwrap();
        assert_eq!(invocation.settings.partitions, 8);
        assert!(matches!(invocation.action, Action::Default(matches) if matches.get_one::<String>("from").unwrap() == "x"));
        assert!(matches!(read_with(&own, "bank verify").unwrap().action, Action::Verify), "its arguments are not those of subcommands");
        for line in ["bank", "bank --partitions 8", "bank verify --from x"] {
            assert!(matches!(read_with(&own, line), Err(Refusal::Usage(_))), "{line}");
        }
    }

    #[test]
    fn topics_have_flags_of_their_own() {
        let settings = read("bank run --account-topics-events ledger").unwrap().settings;
        assert_eq!(settings.topology(account("bank")).topic(es_core::record::Role::Events), Some("ledger"));
        assert_eq!(read("bank run --account-group new").unwrap().settings.topology(account("bank")).group(), "new");
    }

    #[test]
    fn the_version_is_the_programs_own_and_this_crates() {
        let own = Own { version: Some("1.2".into()), ..demo() };
        let Err(Refusal::Usage(shown)) = read_with(&own, "bank --version") else { panic!("it is no action") };
        assert_eq!(shown.to_string(), concat!("bank 1.2 (es-kafka ", env!("CARGO_PKG_VERSION"), ")\n"));
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in ["bank", "bank run --no-such-flag 1", "bank state", "bank run --kafka nonsense", "bank verify --component other"] {
            assert!(matches!(read(line), Err(Refusal::Usage(_))), "{line}");
        }
        let Err(Refusal::Settings(error)) = read("bank run --guarantee maybe") else { panic!("a bad value must be refused") };
        assert!(error.to_string().starts_with("`guarantee` (flag --guarantee): `maybe`"), "{error}");
    }

    /// The help is read by people: a change of it is to be seen. `ES_TEST_UPDATE=1` writes it anew.
    #[test]
    fn the_help_is_as_it_was_agreed() {
        let help = command("bank", &[account("bank")], &demo()).render_long_help().to_string();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/help.txt");
        if std::env::var("ES_TEST_UPDATE").is_ok() {
            std::fs::write(path, &help).unwrap();
        }
        assert_eq!(help, std::fs::read_to_string(path).unwrap(), "ES_TEST_UPDATE=1 writes {path} anew");
    }

    #[test]
    fn the_help_names_every_subcommand_and_every_setting() {
        let help = command("bank", &[account("bank")], &demo()).term_width(120).render_long_help().to_string();
        for word in
            ["demo", "run", "topics", "state", "events", "verify", "config", "Exit codes:", "--account-topics-dead-letters", "--kafka"]
        {
            assert!(help.contains(word), "{word} is missing from\n{help}");
        }
        for key in KEYS {
            assert!(help.contains(&format!("--{}", key.name.replace('.', "-"))), "{}", key.name);
            assert!(help.contains(key.default), "the default of {}", key.name);
        }
    }
}
