//! What the signers of Kubernetes want of a request.

use super::sign::Request;

pub const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub const LEGACY: &str = "kubernetes.io/legacy-unknown";

const NODES: &str = "system:nodes";
const NODE_PREFIX: &str = "system:node:";

fn only(usages: &[String], needed: &[&str], also: &[&str]) -> bool {
    needed.iter().all(|n| usages.iter().any(|u| u == n))
        && usages
            .iter()
            .all(|u| needed.contains(&u.as_str()) || also.contains(&u.as_str()))
}

/// Why a signer does not sign a request; `Ok` when it does.
pub fn check(signer: &str, request: &Request, usages: &[String]) -> Result<(), &'static str> {
    match signer {
        CLIENT => {
            let also = ["digital signature", "key encipherment"];
            if only(usages, &["client auth"], &also) {
                Ok(())
            } else {
                Err(
                    "usages did not match [client auth], optionally with [digital signature key encipherment]",
                )
            }
        }
        KUBELET_CLIENT => kubelet_client(request, usages),
        KUBELET_SERVING => kubelet_serving(request, usages),
        _ => Ok(()),
    }
}

fn node(request: &Request) -> Result<(), &'static str> {
    if request.organizations != [NODES] {
        return Err("subject organization is not system:nodes");
    }
    if !request.common_name.starts_with(NODE_PREFIX) {
        return Err("subject common name does not begin with system:node:");
    }
    Ok(())
}

/// Whether a request is for a node's credentials as a client.
pub fn kubelet_client(request: &Request, usages: &[String]) -> Result<(), &'static str> {
    node(request)?;
    if !request.dns_names.is_empty() {
        return Err("DNS subjectAltNames are not allowed");
    }
    if !request.addresses.is_empty() {
        return Err("IP subjectAltNames are not allowed");
    }
    if request.other_names > 0 {
        return Err("URI and Email subjectAltNames are not allowed");
    }
    let needed = ["digital signature", "client auth"];
    if only(usages, &needed, &["key encipherment"]) {
        Ok(())
    } else {
        Err("usages did not match [key encipherment, digital signature, client auth]")
    }
}

fn kubelet_serving(request: &Request, usages: &[String]) -> Result<(), &'static str> {
    node(request)?;
    if request.dns_names.is_empty() && request.addresses.is_empty() {
        return Err("DNS or IP subjectAltName is required");
    }
    if request.other_names > 0 {
        return Err("URI and Email subjectAltNames are not allowed");
    }
    let needed = ["digital signature", "server auth"];
    if only(usages, &needed, &["key encipherment"]) {
        Ok(())
    } else {
        Err("usages did not match [key encipherment, digital signature, server auth]")
    }
}
