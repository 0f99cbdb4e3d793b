//! `gantry console`: the web console of a fleet.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::Args;
use gantry_console::{Options, Tls};

use super::up::ended;
use crate::cli::Global;
use crate::connect;
use crate::failure::{Exit, Failure, Result};
use crate::fleet::Fleet;
use crate::output::{Tone, color, paint, println};

/// Where the console of `gantry up` listens unless that is taken.
const PORT: u16 = 7443;

/// Serve the web console of the fleet whose hub the kubeconfig names.
///
/// Everyone logs in with their own token, client certificate or kubeconfig of the hub, sees what the
/// hub lets them read and does what it lets them do. The kubeconfig given here is the console's own
/// identity: it reads Gantry's objects, the Secrets with the members' kubeconfigs, and through
/// those the members' nodes and pods.
#[derive(Debug, Args)]
pub struct Console {
    /// Address and port to listen on (HTTPS)
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), PORT))]
    pub listen: SocketAddr,
    /// Certificate with its chain, PEM [default: one that is made for this run]
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Print a link that logs its first visitor in as the kubeconfig's user
    #[arg(long)]
    pub login_link: bool,
    /// Where the records are that it shows: postgres://USER@HOST/DATABASE, or the path of an SQLite file
    #[arg(
        long,
        value_name = "URL",
        env = "GANTRY_RECORDS",
        hide_env_values = true
    )]
    pub records: Option<String>,
    #[command(flatten)]
    pub oidc: Oidc,
}

/// Logging in with an identity provider that the hub's API server trusts too.
#[derive(Debug, Args)]
#[command(next_help_heading = "Login with OpenID Connect")]
pub struct Oidc {
    /// URL of the issuer
    #[arg(long, value_name = "URL", requires = "oidc_client_id")]
    pub oidc_issuer_url: Option<String>,
    /// What the console is called there; the hub's API server has to take tokens for it
    #[arg(long, value_name = "ID", requires = "oidc_issuer_url")]
    pub oidc_client_id: Option<String>,
    /// File with the client's secret, where it has one: with PKCE it needs none
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_client_secret_file: Option<PathBuf>,
    /// Authorities that the issuer's server is known by, PEM [default: those of the system]
    #[arg(long, value_name = "FILE", requires = "oidc_issuer_url")]
    pub oidc_ca_file: Option<PathBuf>,
    /// Scopes to ask for beside openid
    #[arg(
        long,
        value_name = "SCOPE",
        value_delimiter = ',',
        default_value = "profile,email,groups"
    )]
    pub oidc_scopes: Vec<String>,
    /// URL under which browsers reach the console [default: what they call it]
    #[arg(long, value_name = "URL", requires = "oidc_issuer_url")]
    pub public_url: Option<String>,
}

impl Oidc {
    fn options(self) -> Result<Option<gantry_console::oidc::Options>> {
        let Some((issuer, client_id)) = self.oidc_issuer_url.zip(self.oidc_client_id) else {
            return Ok(None);
        };
        let read = |file: PathBuf| {
            std::fs::read_to_string(&file).map_err(|e| {
                Failure::new(
                    Exit::Failure,
                    format!("cannot read {}: {e}", file.display()),
                )
            })
        };
        let secret = self.oidc_client_secret_file.map(read).transpose()?;
        Ok(Some(gantry_console::oidc::Options {
            issuer,
            client_id,
            client_secret: secret.map(|s| s.trim().to_owned()),
            ca_pem: self.oidc_ca_file.map(read).transpose()?,
            scopes: self.oidc_scopes,
            url: self.public_url,
        }))
    }
}

/// The console beside an embedded fleet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "The console")]
pub struct Beside {
    /// Port of the web console; 0 for a free one [default: 7443, else a free one]
    #[arg(long, value_name = "PORT")]
    pub console_port: Option<u16>,
    /// Start no web console
    #[arg(long)]
    pub no_console: bool,
}

pub async fn run(args: Console, global: &Global) -> Result<()> {
    let hub = connect::config(global).await?;
    let tls = match args.tls_cert.zip(args.tls_key) {
        Some((cert, key)) => Tls::Files(cert, key),
        None => Tls::Made {
            folder: None,
            addresses: vec![args.listen.ip()],
        },
    };
    let options = Options {
        address: args.listen,
        tls,
        hub,
        client: None,
        door: args.login_link,
        records: args.records.as_deref().map(open).transpose()?,
        oidc: args.oidc.options()?,
    };
    let console = start(options).await?;
    println(words(&console, color()))?;
    let end = ended().await;
    console.shutdown().await;
    end
}

/// Starts the console of an embedded fleet.
pub async fn beside(
    fleet: &Fleet,
    address: IpAddr,
    args: &Beside,
    records: Option<&str>,
) -> Result<Option<gantry_console::Console>> {
    if args.no_console {
        return Ok(None);
    }
    let options = |port| async move {
        Ok::<_, Failure>(Options {
            address: SocketAddr::new(address, port),
            tls: Tls::Made {
                folder: Some(fleet.data_dir().to_owned()),
                addresses: vec![address],
            },
            hub: fleet.config().await?,
            client: Some(fleet.client()),
            door: true,
            records: records.map(open).transpose()?,
            oidc: None,
        })
    };
    let first = start(options(args.console_port.unwrap_or(PORT)).await?).await;
    let started = match first {
        Err(failure) if failure.exit == Exit::PortBusy && args.console_port.is_none() => {
            start(options(0).await?).await
        }
        other => other,
    };
    started.map(Some)
}

/// Opens the records to be read.
fn open(url: &str) -> Result<std::sync::Arc<dyn gantry_records::Records>> {
    gantry_records::open(url)
        .map_err(|e| Failure::new(Exit::Failure, format!("cannot open the records: {e}")))
}

async fn start(options: Options) -> Result<gantry_console::Console> {
    let console = gantry_console::Console::start(options).await;
    console.map_err(|error| match &error {
        gantry_console::Error::Listen { address, source }
            if source.kind() == std::io::ErrorKind::AddrInUse =>
        {
            Failure::new(
                Exit::PortBusy,
                format!("the address {address} is taken by another program"),
            )
            .hint("choose another port for the console")
        }
        _ => Failure::new(
            Exit::Failure,
            format!("{:#}", anyhow::Error::from(error).context("the console")),
        ),
    })
}

/// Where it is, and how to log in.
pub fn words(console: &gantry_console::Console, color: bool) -> String {
    let dim = |text: &str| paint(text, Tone::Dim, color);
    let mut text = format!(
        "Console  {}   {}",
        paint(console.url(), Tone::Strong, color),
        dim("# log in with a token or kubeconfig of the hub")
    );
    if let Some(door) = console.door() {
        text += &format!(
            "\n  {door}\n  {}",
            dim("# this link logs its first visitor in as administrator; it works once")
        );
    }
    text
}
