//! Which clusters, cells and nodes an embedded fleet consists of: pure arithmetic on what was asked
//! for, and the record of it that the data folder keeps.

use serde::{Deserialize, Serialize};

/// Format of `fleet.json`; a folder with a higher one was written by a newer Gantry.
pub const FORMAT: u32 = 1;

/// Members are named after cities, as the cells of a real fleet are.
const CITIES: [(&str, &str); 8] = [
    ("sh", "shanghai"),
    ("bj", "beijing"),
    ("gz", "guangzhou"),
    ("cd", "chengdu"),
    ("hz", "hangzhou"),
    ("wh", "wuhan"),
    ("xa", "xian"),
    ("nj", "nanjing"),
];

/// The most members and cells a member that one process is meant for.
pub const MOST_CLUSTERS: u32 = 50;
pub const MOST_CELLS: u32 = 26;

/// What a user may ask for; what is left out takes the default or what the folder holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    pub clusters: Option<u32>,
    pub cells: Option<u32>,
    pub nodes: Option<u32>,
    pub seed: Option<u64>,
}

/// The fleet's shape, as `fleet.json` holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    pub format: u32,
    /// Seed of all that is random about the simulated nodes.
    pub seed: u64,
    /// Total of nodes over all members.
    pub nodes: u32,
    pub members: Vec<Member>,
    /// Port on which each cluster listened last, so that a kubeconfig stays good after a restart.
    #[serde(default)]
    pub ports: std::collections::BTreeMap<String, u16>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    pub name: String,
    pub region: String,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cell {
    pub name: String,
    pub nodes: u32,
}

#[cfg(test)]
impl Member {
    pub fn nodes(&self) -> u32 {
        self.cells.iter().map(|c| c.nodes).sum()
    }
}

impl Layout {
    pub fn new(wish: Wish) -> Result<Layout, String> {
        let clusters = within("--clusters", wish.clusters.unwrap_or(2), 1, MOST_CLUSTERS)?;
        let cells = within("--cells", wish.cells.unwrap_or(2), 1, MOST_CELLS)?;
        let nodes = wish.nodes.unwrap_or(240);
        if nodes < clusters * cells {
            return Err(format!(
                "--nodes {nodes} is too few for {clusters} clusters of {cells} cells: each cell needs at least \
                 one node; ask for {} or more",
                clusters * cells
            ));
        }
        let places = clusters * cells;
        let members = (0..clusters)
            .map(|m| {
                let (name, region) = match CITIES.get(m as usize) {
                    Some((name, region)) => ((*name).to_owned(), (*region).to_owned()),
                    None => (format!("m{}", m + 1), format!("region-{}", m + 1)),
                };
                let cells = (0..cells)
                    .map(|c| Cell {
                        name: format!("{name}-{}", char::from(b'a' + c as u8)),
                        nodes: share(nodes, places, m * cells + c),
                    })
                    .collect();
                Member {
                    name,
                    region,
                    cells,
                }
            })
            .collect();
        Ok(Layout {
            format: FORMAT,
            seed: wish.seed.unwrap_or(1),
            nodes,
            members,
            ports: Default::default(),
        })
    }

    /// Address ranges of a member's pods and nodes: equal parts of 10.128.0.0/9 and 172.16.0.0/12, so
    /// that no two instances of the fleet share an address.
    pub fn ranges(&self, member: usize) -> (String, String) {
        let bits = (self.members.len() as u32).next_power_of_two().ilog2();
        let part = |base: u32, prefix: u32| {
            let start = base + ((member as u32) << (32 - prefix - bits));
            format!("{}/{}", std::net::Ipv4Addr::from(start), prefix + bits)
        };
        (part(0x0a80_0000, 9), part(0xac10_0000, 12))
    }

    /// Whether the fleet in a folder is the one now asked for; the first difference, named, where it
    /// is not. What was not asked for fits anything.
    pub fn check(&self, wish: Wish) -> Result<(), String> {
        let cells = self.members.first().map_or(0, |m| m.cells.len() as u32);
        let differ = |flag: &str, has: u64, wanted: u64| {
            Err(format!(
                "the folder holds a fleet made with {flag} {has}, not {wanted}"
            ))
        };
        match wish {
            Wish {
                clusters: Some(n), ..
            } if n as usize != self.members.len() => {
                differ("--clusters", self.members.len() as u64, n.into())
            }
            Wish { cells: Some(n), .. } if n != cells => differ("--cells", cells.into(), n.into()),
            Wish { nodes: Some(n), .. } if n != self.nodes => {
                differ("--nodes", self.nodes.into(), n.into())
            }
            Wish { seed: Some(n), .. } if n != self.seed => differ("--seed", self.seed, n),
            _ => Ok(()),
        }
    }
}

fn within(flag: &str, n: u32, least: u32, most: u32) -> Result<u32, String> {
    if (least..=most).contains(&n) {
        Ok(n)
    } else {
        Err(format!("{flag} {n} is not between {least} and {most}"))
    }
}

/// The `i`th of `parts` nearly equal parts of `total`.
pub fn share(total: u32, parts: u32, i: u32) -> u32 {
    total / parts + u32::from(i < total % parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_members_of_two_cells_by_default() {
        let layout = Layout::new(Wish::default()).unwrap();
        let names: Vec<_> = layout
            .members
            .iter()
            .flat_map(|m| &m.cells)
            .map(|c| (c.name.as_str(), c.nodes))
            .collect();
        assert_eq!(
            names,
            [("sh-a", 60), ("sh-b", 60), ("bj-a", 60), ("bj-b", 60)]
        );
    }

    #[test]
    fn every_node_has_a_cell_and_names_stay_unique() {
        for clusters in 1..=MOST_CLUSTERS {
            let wish = Wish {
                clusters: Some(clusters),
                cells: Some(3),
                nodes: Some(1001),
                seed: None,
            };
            let layout = Layout::new(wish).unwrap();
            assert_eq!(layout.members.iter().map(Member::nodes).sum::<u32>(), 1001);
            let mut cells: Vec<_> = layout
                .members
                .iter()
                .flat_map(|m| &m.cells)
                .map(|c| &c.name)
                .collect();
            cells.sort();
            cells.dedup();
            assert_eq!(cells.len() as u32, clusters * 3);
        }
    }

    #[test]
    fn members_share_no_address() {
        let ranges = |clusters| {
            let layout = Layout::new(Wish {
                clusters: Some(clusters),
                ..Wish::default()
            })
            .unwrap();
            (0..clusters as usize)
                .map(|m| layout.ranges(m))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            ranges(1),
            [("10.128.0.0/9".to_owned(), "172.16.0.0/12".to_owned())]
        );
        let three = ranges(3);
        let pods: Vec<_> = three.iter().map(|(pods, _)| pods.as_str()).collect();
        assert_eq!(pods, ["10.128.0.0/11", "10.160.0.0/11", "10.192.0.0/11"]);
        assert_eq!(three[2].1, "172.24.0.0/14");
    }

    #[test]
    fn what_cannot_be_is_refused_by_the_flag_s_name() {
        let cases = [
            (
                Wish {
                    clusters: Some(0),
                    ..Wish::default()
                },
                "--clusters 0 is not between 1 and 50",
            ),
            (
                Wish {
                    cells: Some(27),
                    ..Wish::default()
                },
                "--cells 27 is not between 1 and 26",
            ),
            (
                Wish {
                    nodes: Some(3),
                    ..Wish::default()
                },
                "--nodes 3 is too few for 2 clusters of 2 cells: each cell needs at least one node; ask for 4 or more",
            ),
        ];
        for (wish, expected) in cases {
            assert_eq!(Layout::new(wish).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_folder_keeps_its_shape() {
        let layout = Layout::new(Wish::default()).unwrap();
        assert_eq!(layout.check(Wish::default()), Ok(()));
        assert_eq!(
            layout.check(Wish {
                nodes: Some(240),
                ..Wish::default()
            }),
            Ok(())
        );
        let other = Wish {
            clusters: Some(3),
            ..Wish::default()
        };
        assert_eq!(
            layout.check(other).unwrap_err(),
            "the folder holds a fleet made with --clusters 2, not 3"
        );
    }
}
