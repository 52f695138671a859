//! What a binary does once: it reads its command line, installs subscriber, signal handlers and panic hook, runs, and says how it ended.

use crate::app::{App, AppError, OwnCommand};
use crate::cli::{self, Action, Invocation, Output, Refusal, TopicsAction};
use crate::component::Part;
use crate::exit::Exit;
#[cfg(feature = "otel")]
use crate::otel::Exporters;
use crate::panics;
use crate::progress::{Lines, Progress, say};
use crate::running::Running;
use crate::settings::{Settings, Sources};
use crate::tools::{self, Finding, Question, Tool};
use crate::topics::Plan;
use es_core::topology::Topology;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::{self, IsTerminal, Write as _};
use std::process;
use std::thread;
use std::time::{Duration, Instant};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::prelude::*;

/// How often the main thread looks for signals and shows progress.
const LOOK: Duration = Duration::from_millis(50);
/// How much longer than `shutdown.timeout` the ports may take to close.
const GRACE: Duration = Duration::from_secs(5);

/// Does what the command line says.
pub(crate) fn run(mut app: App) -> Exit {
    let (own, default) = (std::mem::take(&mut app.commands), app.default_command.take());
    let added = cli::Own {
        commands: own.iter().map(|(command, _)| command.clone()).collect(),
        default: default.as_ref().map(|(command, _)| command.clone()),
        version: app.version.clone(),
    };
    let invocation = match read(&app, &added) {
        Ok(invocation) => invocation,
        Err(Refusal::Usage(message)) => {
            // clap knows whether this is help for stdout or a complaint for stderr. A closed stream leaves nobody to tell.
            let _ = message.print();
            return if message.use_stderr() { Exit::USAGE } else { Exit::OK };
        }
        Err(Refusal::Settings(error)) => {
            say(format_args!("error: these settings cannot be used\n{error}"));
            return Exit::USAGE;
        }
    };
    let Invocation { action, settings, component, json } = invocation;
    #[cfg(feature = "otel")]
    let exporters = match action {
        Action::Run => Exporters::from_environment(&settings.app),
        _ => Ok(Exporters::default()),
    };
    #[cfg(feature = "otel")]
    let exporters = match exporters {
        Ok(exporters) => exporters,
        Err(message) => {
            say(format_args!("error: OpenTelemetry cannot be exported as the variables OTEL_… say: {message}"));
            return Exit::USAGE;
        }
    };
    let installed = install_subscriber(
        &settings,
        #[cfg(feature = "otel")]
        &exporters,
    );
    if let Err(message) = installed {
        say(format_args!("error: `log`: {message}"));
        return Exit::USAGE;
    }
    panics::install_hook();
    for warning in settings.warnings() {
        tracing::warn!("{warning}");
    }
    let app = app.resolved(settings);
    let result = match action {
        Action::Run => serve(
            &app,
            #[cfg(feature = "otel")]
            &exporters,
        ),
        Action::Config => show_config(&app, json),
        Action::Topics(action) => topics(&app, action, json),
        Action::StateGet { id } => inspect(&app, component, json, Question::State { id }),
        Action::StateList { prefix, limit } => inspect(&app, component, json, Question::States { prefix, limit }),
        Action::Events { id } => inspect(&app, component, json, Question::History { id }),
        Action::Verify => verify(&app, component, json),
        Action::CopyOffsets { from, to } => copy_offsets(&app, component.as_deref(), &from, &to, json),
        Action::Own(name, matches) => {
            let (_, run) = own.into_iter().find(|(command, _)| command.get_name() == name).expect("clap knows only these");
            return run_own(run, &matches, app);
        }
        Action::Default(matches) => {
            let (_, run) = default.expect("without it clap requires a subcommand");
            return run_own(run, &matches, app);
        }
    };
    result.unwrap_or_else(|error| {
        say(format_args!("error: {error}"));
        exit_of(&error)
    })
}

fn run_own(run: OwnCommand, matches: &clap::ArgMatches, app: App) -> Exit {
    run(matches, app).unwrap_or_else(|error| {
        say(format_args!("error: {error}"));
        error.downcast_ref::<AppError>().map_or(Exit::FAILED, exit_of)
    })
}

fn read(app: &App, own: &cli::Own) -> Result<Invocation, Refusal> {
    match app.settings() {
        Ok(settings) => Ok(Invocation { action: Action::Run, settings: settings.clone(), component: None, json: false }),
        Err(_) => cli::parse(app.app_name(), &app.default_topologies(), own, std::env::args_os(), Sources::from_environment()),
    }
}

fn exit_of(error: &AppError) -> Exit {
    match error {
        AppError::Settings(_) | AppError::Setup(_) => Exit::USAGE,
        _ => Exit::FAILED,
    }
}

fn install_subscriber(settings: &Settings, #[cfg(feature = "otel")] exporters: &Exporters) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log).map_err(|e| format!("`{}` is no filter: {e}", settings.log))?;
    let lines = tracing_subscriber::fmt::layer().with_writer(|| Lines).with_ansi(io::stderr().is_terminal());
    let subscriber = tracing_subscriber::registry().with(lines.with_filter(filter));
    #[cfg(feature = "otel")]
    let subscriber = subscriber.with(exporters.layer());
    subscriber.try_init().map_err(|e| e.to_string())
}

/// Runs until a signal or a failure. A second signal, or a shutdown that takes too long, ends the process at once: what was not committed is
/// processed again after the next start.
fn serve(app: &App, #[cfg(feature = "otel")] exporters: &Exporters) -> Result<Exit, AppError> {
    let mut signals = Signals::new([SIGTERM, SIGINT])?;
    let settings = app.settings()?;
    let limit = settings.shutdown_timeout + GRACE;
    let running = app.start()?;
    #[cfg(feature = "otel")]
    exporters.observe(&running.metrics());
    let mut progress = Progress::new(&settings.app);
    let mut stopping: Option<Instant> = None;
    while !running.have_all_ended() {
        for _ in signals.pending() {
            if stopping.is_some() {
                abandon("a second signal");
            }
            say(format_args!("{}: settling what is in flight; a second signal ends it at once", settings.app));
            stopping = Some(Instant::now());
            running.ask_to_stop();
        }
        if stopping.is_none() && running.has_ended() {
            // A component has no lane left that works, or the store has failed: the others settle, and the process ends with the error.
            stopping = Some(Instant::now());
            running.ask_to_stop();
        }
        if stopping.is_some_and(|since| since.elapsed() > limit) {
            abandon("the shutdown took too long");
        }
        progress.show(&running.status());
        thread::sleep(LOOK);
    }
    let done = finish(running, limit)?;
    progress.close(&done);
    Ok(Exit::OK)
}

/// Takes the results of lanes that have ended.
fn finish(running: Running, limit: Duration) -> Result<Vec<(String, es_core::runner::Stats)>, AppError> {
    // The threads have returned; what remains is bounded, but a library's destructor is not ours: a watchdog ends the process.
    let (ended, wait) = std::sync::mpsc::channel::<()>();
    thread::spawn(move || {
        if wait.recv_timeout(limit) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            abandon("closing the connections took too long");
        }
    });
    let done = running.stop();
    drop(ended);
    done
}

fn abandon(why: &str) -> ! {
    say(format_args!("error: ended at once ({why}): what was not committed is processed again after the next start"));
    process::exit(Exit::FAILED.code().into());
}

fn show_config(app: &App, json: bool) -> Result<Exit, AppError> {
    let topologies: Vec<Topology> = app.parts()?.into_iter().map(|part| part.topology).collect();
    Output { to: io::stdout().lock(), json }.settings(app.settings()?, &topologies)?;
    Ok(Exit::OK)
}

fn topics(app: &App, action: TopicsAction, json: bool) -> Result<Exit, AppError> {
    let settings = app.settings()?;
    let admin = app.connection()?.admin(settings)?;
    let topologies: Vec<Topology> = app.parts()?.into_iter().map(|part| part.topology).collect();
    let plan = Plan::make(&topologies, settings, &*admin)?;
    if action == TopicsAction::Apply {
        for step in plan.apply(&*admin)? {
            say(format_args!("{step}"));
        }
    }
    let plan = if action == TopicsAction::Apply { Plan::make(&topologies, settings, &*admin)? } else { plan };
    Output { to: io::stdout().lock(), json }.plan(&plan)?;
    for message in plan.messages(|d| action == TopicsAction::Check || d.is_final()) {
        say(format_args!("error: {message}"));
    }
    Ok(if action == TopicsAction::Check && !plan.is_clean() { Exit::FAILED } else { Exit::OK })
}

/// Verifies the component that is named, or all of them one after the other.
fn verify(app: &App, component: Option<String>, json: bool) -> Result<Exit, AppError> {
    let all = || app.parts().map(|parts| parts.into_iter().map(|part| part.topology.component).collect());
    let names: Vec<String> = component.map_or_else(all, |name| Ok(vec![name]))?;
    let mut exit = Exit::OK;
    for name in names {
        match inspect(app, Some(name), json, Question::Verify)? {
            Exit::OK => {}
            other => exit = other,
        }
    }
    Ok(exit)
}

fn copy_offsets(app: &App, component: Option<&str>, from: &str, to: &str, json: bool) -> Result<Exit, AppError> {
    let Part { topology, .. } = app.part(component)?;
    let copied = tools::copy_offsets(app.settings()?, app.connection()?, &topology, from, to)?;
    Output { to: io::stdout().lock(), json }.offsets(&topology, &copied)?;
    Ok(Exit::OK)
}

fn inspect(app: &App, component: Option<String>, json: bool, question: Question) -> Result<Exit, AppError> {
    let Part { topology, component } = app.part(component.as_deref())?;
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut tool = Tool { topology, settings: app.settings()?, connection: app.connection()?, question, json, out: &mut out };
    let finding = component.inspect(&mut tool)?;
    out.flush()?;
    Ok(match finding {
        Finding::Found => Exit::OK,
        Finding::Nothing => Exit::FAILED,
        Finding::Difference => Exit::DIFFERENCE,
    })
}
