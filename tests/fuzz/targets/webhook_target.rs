//! Addresses of webhooks, and what their names resolve to: nothing is admitted that is not the public internet over TLS.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};

use libfuzzer_sys::fuzz_target;
use provisor_providers::address::is_public;
use provisor_providers::target::{Target, TargetRules, URL_MAX};

fuzz_target!(|bytes: &[u8]| {
    if let Some((octets, _)) = bytes.split_first_chunk::<16>() {
        let v6 = std::net::Ipv6Addr::from(*octets);
        let v4 = Ipv4Addr::new(octets[0], octets[1], octets[2], octets[3]);
        assert!(
            !is_public(v6.into())
                || !(v6.is_loopback()
                    || v6.is_multicast()
                    || v6.is_unspecified()
                    || v6.is_unique_local()
                    || v6.is_unicast_link_local()
                    || v6.to_ipv4().is_some())
        );
        assert!(
            !is_public(v4.into())
                || !(v4.is_loopback()
                    || v4.is_private()
                    || v4.is_link_local()
                    || v4.is_multicast()
                    || v4.is_unspecified()
                    || v4.is_broadcast()
                    || v4.is_documentation())
        );
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let rules = TargetRules::default();
    let Ok(target) = Target::parse(text, &rules) else { return };
    assert!(target.is_https() && target.port() == 443);
    assert!(target.address().is_none_or(is_public));
    assert!(target.as_str().is_ascii() && !target.as_str().contains(['#', ' ', '\\']) && !target.authority().contains('@'));
    // Encoding makes some longer than is taken.
    let again = Target::parse(target.as_str(), &rules);
    assert!(target.as_str().len() > URL_MAX || again.is_ok_and(|again| again.as_str() == target.as_str()));
    if target.name().is_some() {
        let public = IpAddr::from([1, 1, 1, 1]);
        assert!(target.admit(&[public]).is_ok());
        assert!(target.admit(&[public, IpAddr::from([127, 0, 0, 1])]).is_err());
        assert!(target.admit(&[]).is_err());
    }
});
