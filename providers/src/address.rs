//! Which addresses are the public internet and which are the operator's own.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{Ipv4Net, Ipv6Net};

/// IPv4 addresses that are not the public internet: the IANA special-purpose registry, without its two globally reachable anycast
/// services (AS112, AMT) that are forwarded as any address.
const SPECIAL_V4: [Ipv4Net; 15] = [
    Ipv4Net::new_assert(Ipv4Addr::UNSPECIFIED, 8),
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 0, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 0, 2, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 88, 99, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 18, 0, 0), 15),
    Ipv4Net::new_assert(Ipv4Addr::new(198, 51, 100, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(203, 0, 113, 0), 24),
    Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4),
    Ipv4Net::new_assert(Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// The only IPv6 addresses that are given out for the public internet.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What is not public within [`GLOBAL_V6`]: protocol assignments with Teredo, documentation, 6to4. The forms that carry an IPv4
/// address (mapped, compatible, NAT64) lie outside it already.
const SPECIAL_V6: [Ipv6Net; 4] = [
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2001, 0x0db8, 0, 0, 0, 0, 0, 0), 32),
    Ipv6Net::new_assert(Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    Ipv6Net::new_assert(Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

const PRIVATE_V4: [Ipv4Net; 4] = [
    Ipv4Net::new_assert(Ipv4Addr::new(10, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8),
    Ipv4Net::new_assert(Ipv4Addr::new(172, 16, 0, 0), 12),
    Ipv4Net::new_assert(Ipv4Addr::new(192, 168, 0, 0), 16),
];

const PRIVATE_V6: [Ipv6Net; 2] =
    [Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), Ipv6Net::new_assert(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7)];

/// Whether an address is on the public internet. An IPv6 address that carries an IPv4 one is not: nobody who means well resolves to
/// it, and what a translator makes of it is out of our sight.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !SPECIAL_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => GLOBAL_V6.contains(&address) && !SPECIAL_V6.iter().any(|net| net.contains(&address)),
    }
}

/// Whether an address is this machine or its private network. Link-local addresses, where clouds keep their metadata service, are
/// neither public nor private: no profile reaches them.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => PRIVATE_V4.iter().any(|net| net.contains(&address)),
        IpAddr::V6(address) => PRIVATE_V6.iter().any(|net| net.contains(&address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Class {
        Public,
        Private,
        Neither,
    }

    fn class(address: IpAddr) -> Class {
        match (is_public(address), is_private(address)) {
            (true, false) => Class::Public,
            (false, true) => Class::Private,
            (false, false) => Class::Neither,
            (true, true) => panic!("{address} is both"),
        }
    }

    #[test]
    fn addresses_are_what_they_are() {
        for (addresses, expected) in [
            (
                "1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.0 192.0.1.0 198.17.255.255 198.20.0.0 \
                 223.255.255.255 192.175.48.1 2a00:1450:4001::1 2606:4700::1111 2001:200::1 2003::1 3ffe::1",
                Class::Public,
            ),
            (
                "127.0.0.1 127.255.255.254 10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 ::1 fc00::1 fd12:3456::1",
                Class::Private,
            ),
            (
                "0.0.0.0 0.1.2.3 100.64.0.1 100.127.255.255 169.254.169.254 192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 \
                 198.51.100.7 203.0.113.9 224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255 \
                 :: ::2 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:169.254.169.254 64:ff9b::7f00:1 64:ff9b::8.8.8.8 \
                 64:ff9b:1::1 100::1 2001::1 2001:0:7f00:1:: 2001:1ff::1 2001:db8::1 2002:7f00:1:: 2002:0808:0808:: 3fff::1 \
                 3fff:fff::1 5f00::1 fe80::1 fec0::1 ff02::1 fd00:ec2::254",
                Class::Neither,
            ),
        ] {
            for text in addresses.split_whitespace() {
                let address: IpAddr = text.parse().unwrap();
                // EC2's IPv6 metadata address lies in the private range: only a development profile gets there.
                let expected = if text == "fd00:ec2::254" { &Class::Private } else { &expected };
                assert_eq!(&class(address), expected, "{text}");
            }
        }
    }
}
