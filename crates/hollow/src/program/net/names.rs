//! `dig`, `getent hosts` and `nslookup`.

use super::{Answer, Question, flags::unknown};
use crate::program::machine::{Machine, Ran, Stop};

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its IPv4 addresses.
    A,
    /// Its IPv6 addresses.
    Aaaa,
    /// The name that it stands for.
    Cname,
    /// The name of a reversed address.
    Ptr,
    /// Where a service is.
    Srv,
}

impl Kind {
    /// As it is written in zones.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Kind::A => "A",
            Kind::Aaaa => "AAAA",
            Kind::Cname => "CNAME",
            Kind::Ptr => "PTR",
            Kind::Srv => "SRV",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let all = [Kind::A, Kind::Aaaa, Kind::Cname, Kind::Ptr, Kind::Srv];
        all.into_iter()
            .find(|it| it.name().eq_ignore_ascii_case(text))
    }
}

/// A question to the cluster's DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// What is asked of it.
    pub kind: Kind,
    /// Whether the name may be short for one that the pod's search list makes of it.
    pub search: bool,
}

/// What DNS says of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The whole name, with its last dot.
    pub name: String,
    /// Of which kind.
    pub kind: Kind,
    /// What it stands for, as zones have it.
    pub data: String,
}

/// The address of the cluster's DNS that containers are told.
pub const SERVER: &str = "10.96.0.10";
/// How long answers may be kept, in seconds, as CoreDNS tells it.
const TTL: u32 = 5;

fn ask(machine: &mut Machine, lookup: Lookup) -> Result<Vec<Record>, Stop> {
    Ok(match machine.ask(Question::Name(lookup))? {
        Answer::Records(records) => records,
        _ => vec![],
    })
}

/// The name under which DNS keeps that of an address.
fn reversed(address: &str) -> Option<String> {
    let address: std::net::Ipv4Addr = address.parse().ok()?;
    let [a, b, c, d] = address.octets();
    Some(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
}

/// `dig`: one name, one kind, of the cluster's DNS.
pub fn dig(machine: &mut Machine, args: &[String]) -> Ran {
    let (mut short, mut all, mut answer, mut search) = (false, true, true, false);
    let (mut name, mut kind) = (None, Kind::A);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        match arg.as_str() {
            "+short" => short = true,
            "+noall" => (all, answer) = (false, false),
            "+answer" => answer = true,
            "+search" => search = true,
            // How it is asked makes no difference here.
            it if it.starts_with('+') => {}
            "-x" => {
                let address = rest.next().map_or("", String::as_str);
                let Some(whole) = reversed(address) else {
                    return unknown(format!("dig -x {address}"));
                };
                (name, kind) = (Some(whole), Kind::Ptr);
            }
            "-t" => match rest.next().and_then(|it| Kind::parse(it)) {
                Some(it) => kind = it,
                None => return unknown("dig for this type"),
            },
            it if it.starts_with('@') => return unknown("dig at another name server"),
            it if it.starts_with('-') => return unknown(format!("dig {it}")),
            it => match (Kind::parse(it), &name) {
                (Some(it), Some(_)) => kind = it,
                (_, None) => name = Some(it.to_owned()),
                (None, Some(_)) => return unknown("dig for several names"),
            },
        }
    }
    let Some(name) = name else {
        return unknown("dig without a name");
    };
    let whole = format!("{}.", name.trim_end_matches('.'));
    let records = ask(machine, Lookup { name, kind, search })?;
    if all && !short {
        let status = if records.is_empty() {
            "NXDOMAIN"
        } else {
            "NOERROR"
        };
        machine.print(format!(
            "\n; <<>> DiG (simulated by Gantry) <<>> {}\n;; Got answer:\n;; ->>HEADER<<- opcode: QUERY, status: {status}, id: 0\n\n\
             ;; QUESTION SECTION:\n;{whole}\t\tIN\t{}\n\n",
            args.join(" "),
            kind.name()
        ))?;
        if !records.is_empty() {
            machine.print(";; ANSWER SECTION:\n")?;
        }
    }
    for record in records.iter().filter(|_| answer || short) {
        let Record { name, kind, data } = record;
        machine.print(match short {
            true => format!("{data}\n"),
            false => format!("{name}\t{TTL}\tIN\t{}\t{data}\n", kind.name()),
        })?;
    }
    if all && !short {
        machine.print(format!("\n;; SERVER: {SERVER}#53({SERVER})\n"))?;
    }
    Ok(0)
}

/// `getent hosts NAME…`: in `/etc/hosts`, and then in DNS.
pub fn getent(machine: &mut Machine, args: &[String]) -> Ran {
    let Some(("hosts" | "ahosts" | "ahostsv4", names)) =
        args.split_first().map(|(it, names)| (it.as_str(), names))
    else {
        return unknown("getent for anything but hosts");
    };
    let mut code = 0;
    for name in names {
        let file = machine.disk.read("/etc/hosts").unwrap_or_default();
        let file = String::from_utf8_lossy(&file).into_owned();
        let line = file.lines().find_map(|line| {
            let mut words = line.split('#').next()?.split_whitespace();
            let address = words.next()?;
            let names: Vec<&str> = words.collect();
            let found = names.contains(&name.as_str());
            found.then(|| format!("{address:<15} {}\n", names.join(" ")))
        });
        if let Some(line) = line {
            machine.print(line)?;
            continue;
        }
        let lookup = Lookup {
            name: name.clone(),
            kind: Kind::A,
            search: true,
        };
        let records = ask(machine, lookup)?;
        let mut found = false;
        for record in records.iter().filter(|it| it.kind == Kind::A) {
            let whole = record.name.trim_end_matches('.');
            machine.print(format!("{:<15} {whole}\n", record.data))?;
            found = true;
        }
        if !found {
            code = 2;
        }
    }
    Ok(code)
}

/// `nslookup NAME`, as busybox has it.
pub fn nslookup(machine: &mut Machine, args: &[String]) -> Ran {
    let [name] = args else {
        return unknown("nslookup with more than a name");
    };
    let lookup = match reversed(name) {
        Some(name) => Lookup {
            name,
            kind: Kind::Ptr,
            search: false,
        },
        None => Lookup {
            name: name.clone(),
            kind: Kind::A,
            search: true,
        },
    };
    let records = ask(machine, lookup)?;
    machine.print(format!("Server:\t\t{SERVER}\nAddress:\t{SERVER}:53\n\n"))?;
    if records.is_empty() {
        return machine.fail(1, &format!("** server can't find {name}: NXDOMAIN\n"));
    }
    for Record { name, kind, data } in &records {
        let name = name.trim_end_matches('.');
        machine.print(match kind {
            Kind::A | Kind::Aaaa => format!("Name:\t{name}\nAddress: {data}\n"),
            Kind::Cname => format!("{name}\tcanonical name = {data}\n"),
            Kind::Ptr => format!("{name}\tname = {data}\n"),
            Kind::Srv => format!("{name}\tservice = {data}\n"),
        })?;
    }
    machine.print("\n")
}
