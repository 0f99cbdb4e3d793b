//! The openb trace (Alibaba's cluster-trace-gpu-v2023): 1,523 machines and 8,152 pods over 149 days, read
//! as classes of simulated nodes and as pods that come and go.
//!
//! GPUs are one extended resource here, in thousandths. That a share must come from one device is left out:
//! the API has no word for it without a device plugin's help.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use gantry_hollow::NodeGroup;
use serde_json::{Value, json};

use crate::failure::{Failure, Result};

/// The extended resource of GPUs, in thousandths of one.
pub const GPU: &str = "example.com/gpu-milli";
/// Label of a node: the model of its GPUs.
const MODEL: &str = "example.com/gpu-model";
const NODES: &str = "openb_node_list_all_node.csv";
const PODS: &str = "openb_pod_list_default.csv";

/// A pod of the trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    pub name: String,
    cpu: i64,
    memory: i64,
    gpu: i64,
    models: Vec<String>,
    /// Seconds of the trace.
    pub created: i64,
    pub deleted: Option<i64>,
}

#[cfg(test)]
impl Pod {
    /// A pod that asks for nothing.
    pub fn lived(name: &str, created: i64, deleted: Option<i64>) -> Self {
        Pod {
            name: name.to_owned(),
            cpu: 0,
            memory: 0,
            gpu: 0,
            models: vec![],
            created,
            deleted,
        }
    }
}

/// The trace.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub groups: Vec<NodeGroup>,
    /// In order of creation.
    pub pods: Vec<Pod>,
}

impl Trace {
    /// Reads the two files of a folder.
    pub fn load(folder: &Path) -> Result<Trace> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read_to_string(&path).map_err(|e| {
                Failure::usage(format!("cannot read {}: {e}", path.display()))
                    .hint("name the folder of the openb trace, with its node list and its pod list")
            })
        };
        let (nodes, pods) = (read(NODES)?, read(PODS)?);
        Ok(Trace {
            groups: groups(&nodes).map_err(|e| Failure::usage(format!("{NODES}: {e}")))?,
            pods: pods_of(&pods).map_err(|e| Failure::usage(format!("{PODS}: {e}")))?,
        })
    }

    /// The seconds that it spans.
    pub fn span(&self) -> i64 {
        let times = self.pods.iter().map(|it| it.deleted.unwrap_or(it.created));
        times.max().unwrap_or(0).max(1)
    }

    /// Its nodes as a scenario.
    pub fn scenario(&self) -> String {
        let mut text = String::from(
            "# Nodes of the openb trace (Alibaba's cluster-trace-gpu-v2023), by size; GPUs in thousandths.\nname: openb\nnodes:\n",
        );
        for it in &self.groups {
            let class = it.class.as_deref().unwrap_or_default();
            let mut line = format!(
                "  - {{class: {class}, count: {}, cpu: {}, memory: {}",
                it.count, it.cpu, it.memory
            );
            for (key, value) in &it.resources {
                // Writing to a string does not fail.
                let _ = write!(line, ", resources: {{{key}: {value}}}");
            }
            for (key, value) in &it.labels {
                let _ = write!(line, ", labels: {{{key}: {value}}}");
            }
            text += &line;
            text += "}\n";
        }
        text
    }
}

type Row<'a> = Vec<&'a str>;

/// The rows below the names of the columns, with their line numbers.
fn rows(text: &str, columns: usize) -> std::result::Result<Vec<(usize, Row<'_>)>, String> {
    let rows = (1..)
        .zip(text.lines())
        .skip(1)
        .filter(|(_, line)| !line.trim().is_empty());
    rows.map(|(number, line)| {
        let row: Row<'_> = line.split(',').map(str::trim).collect();
        match row.len() >= columns {
            true => Ok((number, row)),
            false => Err(format!(
                "line {number} has {} columns, not {columns}",
                row.len()
            )),
        }
    })
    .collect()
}

fn number(line: usize, text: &str) -> std::result::Result<i64, String> {
    match text {
        "" => Ok(0),
        // Times are whole seconds, at times written with a point.
        text => text
            .parse::<f64>()
            .map(|it| it as i64)
            .map_err(|_| format!("line {line}: {text:?} is no number")),
    }
}

fn groups(text: &str) -> std::result::Result<Vec<NodeGroup>, String> {
    let mut sizes: BTreeMap<(i64, i64, i64, String), u32> = BTreeMap::new();
    for (line, row) in rows(text, 5)? {
        let size = (
            number(line, row[1])?,
            number(line, row[2])?,
            number(line, row[3])?,
        );
        *sizes
            .entry((size.0, size.1, size.2, row[4].to_owned()))
            .or_default() += 1;
    }
    let group = |((cpu, memory, gpus, model), count): ((i64, i64, i64, String), u32)| {
        let mut class = format!("c{}-m{}", cpu / 1000, memory / 1024);
        let (mut labels, mut resources) = (BTreeMap::new(), BTreeMap::new());
        if gpus > 0 {
            let _ = write!(class, "-{gpus}x{}", model.to_lowercase());
            labels.insert(MODEL.to_owned(), model);
            resources.insert(GPU.to_owned(), (gpus * 1000).to_string());
        }
        NodeGroup {
            cell: "openb".into(),
            region: "openb".into(),
            prefix: Some(class.clone()),
            class: Some(class),
            count,
            cpu: format!("{cpu}m"),
            memory: format!("{memory}Mi"),
            labels,
            resources,
            ..NodeGroup::default()
        }
    };
    Ok(sizes.into_iter().map(group).collect())
}

fn pods_of(text: &str) -> std::result::Result<Vec<Pod>, String> {
    let mut pods = vec![];
    for (line, row) in rows(text, 10)? {
        pods.push(Pod {
            name: row[0].to_owned(),
            cpu: number(line, row[1])?,
            memory: number(line, row[2])?,
            gpu: number(line, row[3])? * number(line, row[4])?,
            models: row[5]
                .split('|')
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect(),
            created: number(line, row[8])?,
            deleted: match row[9] {
                "" => None,
                at => Some(number(line, at)?),
            },
        });
    }
    pods.sort_by_key(|it| it.created);
    Ok(pods)
}

impl Pod {
    /// As the API takes it.
    pub fn object(&self, namespace: &str) -> Value {
        let mut requests =
            json!({"cpu": format!("{}m", self.cpu), "memory": format!("{}Mi", self.memory)});
        let mut limits = json!({});
        if self.gpu > 0 {
            // Extended resources are asked for and limited alike.
            requests[GPU] = self.gpu.to_string().into();
            limits[GPU] = self.gpu.to_string().into();
        }
        let mut pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": self.name, "namespace": namespace, "labels": {"app": "openb"}},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [{
                    "name": "main", "image": "registry.local/openb:1",
                    "resources": {"requests": requests, "limits": limits},
                }],
            },
        });
        if !self.models.is_empty() {
            pod["spec"]["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [{"matchExpressions": [{"key": MODEL, "operator": "In", "values": self.models}]}],
            }}});
        }
        pod
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE_ROWS: &str = "sn,cpu_milli,memory_mib,gpu,model\nn-0,32000,262144,0,\nn-1,96000,393216,8,G2\nn-2,96000,393216,8,G2\n";
    const POD_ROWS: &str = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
        p-1,6000,12288,1,460,T4|G2,LS,Running,427061,12902960,427061\np-0,12000,16384,0,0,,LS,Pending,0,,\n";

    #[test]
    fn equal_machines_are_a_class_that_a_scenario_reads() {
        let groups = groups(NODE_ROWS).unwrap();
        let counts: Vec<_> = groups
            .iter()
            .map(|it| (it.class.as_deref(), it.count))
            .collect();
        assert_eq!(counts, [(Some("c32-m256"), 1), (Some("c96-m384-8xg2"), 2)]);
        let trace = Trace {
            groups,
            pods: pods_of(POD_ROWS).unwrap(),
        };
        let text = trace.scenario();
        let scenario = gantry_hollow::Scenario::parse(&text, &|_| Err("none".into()));
        let scenario = scenario.unwrap_or_else(|all| panic!("{text}\n{all:?}"));
        assert_eq!(scenario.nodes[1].resources, trace.groups[1].resources);
    }

    #[test]
    fn pods_come_in_the_order_of_time() {
        let pods = pods_of(POD_ROWS).unwrap();
        assert_eq!((pods[0].name.as_str(), pods[0].deleted), ("p-0", None));
        let object = pods[1].object("x");
        assert_eq!(
            object["spec"]["containers"][0]["resources"]["requests"][GPU],
            "460"
        );
        assert!(object["spec"]["affinity"].is_object());
        assert!(pods_of("a\np-0,x").unwrap_err().contains("line 2"));
    }
}
