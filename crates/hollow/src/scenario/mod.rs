//! Scenarios: what a simulated fleet consists of and what happens to it, as a YAML file.
//!
//! A scenario is seeded: what is left to chance follows from its seed and from who somebody is (names,
//! never uids), so that it happens again in the next run. See `docs/simulated-nodes.md` for the file's
//! fields and `examples/scenarios` for files.

mod describe;
mod event;
mod read;
mod read_devices;
mod read_events;
mod values;

pub use describe::describe;
pub use event::{Act, Candidate, Event, Pressure, Stroke, Target, strokes};
pub use values::speed;

use crate::{
    behaviour::Rule,
    image::Catalogue,
    options::{NodeGroup, Options},
    yaml::Mistake,
};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Label of a node that names its class in the scenario.
pub const CLASS: &str = "hollow.gantry.dev/class";

/// A scenario.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// Makes everything left to chance the same again; that of the options if `None`.
    pub seed: Option<u64>,
    /// How many simulated seconds pass in one of the clock's.
    pub speed: Option<f64>,
    /// Nodes.
    pub nodes: Vec<NodeGroup>,
    /// Images and the registry.
    pub images: Arc<Catalogue>,
    /// How pods behave, the first that fits first.
    pub behaviours: Vec<Rule>,
    /// What happens, in order of time.
    pub events: Vec<Event>,
}

/// A scenario that cannot be played.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The file.
    pub file: PathBuf,
    /// All that is wrong with it, in the order of the file; empty if it cannot be read at all.
    pub mistakes: Vec<Mistake>,
    /// Why it cannot be read at all.
    pub unreadable: Option<String>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        if let Some(why) = &self.unreadable {
            return write!(f, "cannot read the scenario {file}: {why}");
        }
        let mut between = "";
        for mistake in &self.mistakes {
            write!(f, "{between}{file}:{mistake}")?;
            between = "\n";
        }
        Ok(())
    }
}

impl std::error::Error for Refused {}

impl Scenario {
    /// Reads a file, and the recordings that it names, which stand beside it.
    ///
    /// # Errors
    /// With everything that is wrong in it.
    pub fn load(file: &Path) -> Result<Self, Refused> {
        let refused = |mistakes, unreadable| Refused {
            file: file.to_owned(),
            mistakes,
            unreadable,
        };
        let text =
            std::fs::read_to_string(file).map_err(|why| refused(vec![], Some(why.to_string())))?;
        let beside = |name: &str| {
            let path = file.parent().unwrap_or(Path::new("")).join(name);
            std::fs::read_to_string(&path).map_err(|why| format!("{}: {why}", path.display()))
        };
        let mut scenario =
            Self::parse(&text, &beside).map_err(|mistakes| refused(mistakes, None))?;
        if scenario.name.is_empty() {
            let stem = file.file_stem().unwrap_or_default();
            scenario.name = stem.to_string_lossy().into_owned();
        }
        Ok(scenario)
    }

    /// Reads a text; recordings are asked for by name.
    ///
    /// # Errors
    /// With everything that is wrong in it.
    pub fn parse(
        text: &str,
        files: &dyn Fn(&str) -> Result<String, String>,
    ) -> Result<Self, Vec<Mistake>> {
        read::scenario(text, files)
    }

    /// Its nodes, where zones are these (region and zone, at least one): a class without a zone is shared
    /// out over all of them.
    #[must_use]
    pub fn groups(&self, zones: &[(String, String)]) -> Vec<NodeGroup> {
        let mut all = vec![];
        for it in &self.nodes {
            if !it.cell.is_empty() {
                let known = zones.iter().find(|(_, zone)| *zone == it.cell);
                let region = known.or(zones.first()).map(|(region, _)| region.clone());
                all.push(NodeGroup {
                    region: Some(it.region.clone())
                        .filter(|it| !it.is_empty())
                        .or(region)
                        .unwrap_or_default(),
                    ..it.clone()
                });
                continue;
            }
            let parts = u32::try_from(zones.len()).unwrap_or(u32::MAX).max(1);
            for (part, (region, zone)) in (0..).zip(zones) {
                let count = it.count / parts + u32::from(part < it.count % parts);
                if count == 0 {
                    continue;
                }
                all.push(NodeGroup {
                    cell: zone.clone(),
                    region: if it.region.is_empty() {
                        region.clone()
                    } else {
                        it.region.clone()
                    },
                    prefix: Some(match &it.prefix {
                        Some(prefix) => format!("{zone}-{prefix}"),
                        None => zone.clone(),
                    }),
                    count,
                    ..it.clone()
                });
            }
        }
        all
    }

    /// Puts it into options, with seed and speed where the scenario says so.
    pub fn apply(self: &Arc<Self>, options: &mut Options) {
        options.seed = self.seed.unwrap_or(options.seed);
        options.time_scale = self.speed.unwrap_or(options.time_scale);
        options.scenario = Some(self.clone());
    }
}
