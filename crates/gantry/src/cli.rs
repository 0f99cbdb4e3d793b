//! The command line: what can be said, and its help.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::commands;
use crate::failure::Exit;
use crate::output::Format;

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const AFTER_HELP: &str = "\
Start here:
  gantry demo                      a fleet comes up and two releases roll through it
  gantry up                        the same fleet, until Ctrl-C
  gantry import -f shop.yaml       plain manifests become Apps and Groups
  gantry release start cart-prod --image registry.example.com/shop/cart:1.5.0 --watch

Exit codes:
  0 done   1 failed   2 wrong usage   3 the watched release did not succeed   4 it waits for a person
  10 port busy   11 data folder unwritable   12 in use   13 from a newer gantry   14 damaged
  130 interrupted";

/// A container cloud over many Kubernetes clusters, as one binary.
#[derive(Debug, Parser)]
#[command(name = "gantry", version, styles = STYLES, after_help = AFTER_HELP, max_term_width = 100)]
#[command(propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// Kubeconfig of the hub [default: $KUBECONFIG, the fleet that `gantry up` runs, ~/.kube/config]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "GANTRY_KUBECONFIG",
        hide_env_values = true
    )]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Act as this user, where that is allowed (impersonation)
    #[arg(long = "as", global = true, value_name = "USER")]
    pub act_as: Option<String>,
    /// With --as: act as a member of this group; may be given several times
    #[arg(
        long = "as-group",
        global = true,
        value_name = "GROUP",
        requires = "act_as"
    )]
    pub act_as_groups: Vec<String>,
    /// When to colour the output; NO_COLOR is honoured
    #[arg(long, global = true, value_enum, default_value_t = ColorChoice::Auto, value_name = "WHEN")]
    pub color: ColorChoice,
    /// Log more to standard error (-v: info, -vv: debug); RUST_LOG has the last word
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ColorChoice {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    // The help of a command is the doc comment of its arguments.
    Demo(commands::demo::Demo),
    Up(commands::up::Up),
    Import(commands::import::Import),
    Adopt(commands::adopt::Adopt),
    Unmanage(commands::adopt::Unmanage),
    Get(commands::get::Get),
    /// Start a release, watch it, press its buttons
    #[command(subcommand)]
    Release(Box<commands::release::Release>),
    /// Release many groups in the order they depend on each other, with jobs between
    #[command(subcommand)]
    Order(commands::order::Order),
    Promote(Box<commands::promote::Promote>),
    Promotions(commands::promote::Promotions),
    /// Look at a group's revisions, and at how two differ
    #[command(subcommand)]
    Revision(commands::revision::Revision),
    /// Stop the line: halt releases of a tenant, in a cell, or of the whole fleet
    #[command(subcommand)]
    Line(commands::line::Line),
    Scale(commands::scale::Scale),
    /// Pull single instances out of service, put them back, restart them
    #[command(subcommand)]
    Instance(commands::instance::Instance),
    Restart(commands::instance::Restart),
    /// Departments and products: namespaces, people, quotas, freezes
    #[command(subcommand)]
    Tenant(Box<commands::tenant::TenantCommand>),
    History(commands::records::History),
    Console(commands::console::Console),
    Hub(commands::parts::Hub),
    Schedule(commands::scheduling::schedule::Schedule),
    Rebalance(commands::scheduling::rebalance::Rebalance),
    /// Say why something is as it is
    #[command(subcommand)]
    Explain(commands::scheduling::explain::Explain),
    /// Try placement policies before they are in force
    #[command(subcommand)]
    Policy(commands::scheduling::policy::Policy),
    Scheduler(commands::scheduling::Scheduler),
    Hollow(commands::hollow::Hollow),
    /// Look at what a scenario of simulated nodes does
    #[command(subcommand)]
    Scenario(commands::hollow::Scenario),
    Controllers(commands::parts::Controllers),
    Apiserver(Box<commands::apiserver::ApiServer>),
    /// Save, restore and inspect all objects of an embedded cluster
    #[command(subcommand)]
    Snapshot(commands::snapshot::Snapshot),
    #[command(subcommand)]
    Bench(commands::bench::Bench),
    /// Print Gantry's CustomResourceDefinitions as YAML, for `kubectl apply -f -`
    Crds,
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// The tenant whose objects a command speaks of.
#[derive(Debug, Clone, Args)]
pub struct Tenant {
    /// The tenant: the namespace of its Apps, Groups and Releases [default: that of the context, else "default"]
    #[arg(
        short = 'n',
        long,
        visible_alias = "namespace",
        value_name = "NAMESPACE"
    )]
    pub tenant: Option<String>,
}

/// How a read is printed.
#[derive(Debug, Clone, Args)]
pub struct Output {
    /// Output format
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    pub output: Format,
}

/// Parses the command line, runs the command and turns its end into an exit code.
pub fn main() -> ExitCode {
    let cli = Cli::parse_from(commands::apiserver::as_kube_apiserver(std::env::args_os()));
    log(cli.global.verbose);
    crate::output::choose_color(cli.global.color);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("error: cannot start the runtime: {e}");
            return ExitCode::from(Exit::Failure as u8);
        }
    };
    let end = runtime.block_on(commands::run(cli));
    // What still runs (a watch, a blocked read of a closed pipe) must not hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match end {
        Ok(exit) => exit,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit as u8)
        }
    }
}

fn log(verbose: u8) {
    let level = match verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        EnvFilter::new(format!(
            "warn,kube_client=off,gantry={level},{},gantry_console::audit=info",
            crates(level)
        ))
    });
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// The level for each of the workspace's crates, in the form of `RUST_LOG`.
fn crates(level: &str) -> String {
    [
        "apiserver",
        "cluster",
        "console",
        "controllers",
        "hollow",
        "hub",
        "records",
        "scheduler",
        "store",
    ]
    .map(|part| format!("gantry_{part}={level}"))
    .join(",")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    /// Every command's help is a snapshot: a change to what a person reads is seen in review.
    #[test]
    fn help() {
        fn all(command: &mut clap::Command, path: &str, out: &mut String) {
            let name = format!("{path}{}", command.get_name());
            out.push_str(&format!(
                "\n===== {name} --help\n{}",
                command.render_long_help()
            ));
            let subcommands: Vec<_> = command
                .get_subcommands()
                .map(|c| c.get_name().to_owned())
                .collect();
            for sub in subcommands {
                if let Some(sub) = command.find_subcommand_mut(&sub) {
                    all(sub, &format!("{name} "), out);
                }
            }
        }
        let mut command = Cli::command().term_width(100);
        command.build();
        let mut text = String::new();
        all(&mut command, "", &mut text);
        insta::assert_snapshot!(text);
    }
}
