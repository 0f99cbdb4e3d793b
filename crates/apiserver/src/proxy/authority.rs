//! The authority of connections that this server opens: to kubelets, and to extension API servers
//! in the name of a user.
//!
//! It lives in memory and signs three things: the certificate by which kubelets know the server where
//! the cluster's authority of clients is somebody else's, the one by which extension servers know that the headers naming a user are true, and the serving
//! certificates of kubelets that run beside this server. It signs nothing for clients, so who shows
//! a certificate of it is this server.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::links::Identity;

/// By this name kubelets know the server; the group lets it do everything there.
pub const KUBELET_CLIENT: &str = "kube-apiserver-kubelet-client";

/// By this name extension API servers know the server.
pub const FRONT_PROXY: &str = "front-proxy-client";

const DAY: Duration = Duration::from_secs(86_400);
/// Longer than a process lives.
const LIFE: Duration = Duration::from_secs(3650 * 86_400);

pub struct Authority {
    /// Its certificate, PEM.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

fn params() -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.not_before = (now - DAY).into();
    params.not_after = (now + LIFE).into();
    params
}

impl Authority {
    pub fn new() -> Result<Authority, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = params();
        params
            .distinguished_name
            .push(DnType::CommonName, "gantry-front-proxy-ca");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let cert = params.self_signed(&key)?.pem();
        Ok(Authority {
            cert,
            issuer: Issuer::new(params, key),
        })
    }

    /// What the server shows: its name, and its groups as organizations.
    pub fn client(&self, name: &str, groups: &[&str]) -> Result<Identity, rcgen::Error> {
        let mut params = params();
        params.distinguished_name.push(DnType::CommonName, name);
        for group in groups {
            params
                .distinguished_name
                .push(DnType::OrganizationName, *group);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(params)
    }

    /// What a server at these names and addresses shows.
    pub fn serving(&self, hosts: &[String]) -> Result<Identity, rcgen::Error> {
        let mut params = CertificateParams::new(hosts.to_vec())?;
        let now = SystemTime::now();
        params.not_before = (now - DAY).into();
        params.not_after = (now + LIFE).into();
        params
            .distinguished_name
            .push(DnType::CommonName, "gantry-kubelet");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign(params)
    }

    fn sign(&self, params: CertificateParams) -> Result<Identity, rcgen::Error> {
        let key = KeyPair::generate()?;
        let cert = params.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            cert: cert.pem(),
            key: key.serialize_pem(),
        })
    }
}
