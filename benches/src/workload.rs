//! The workloads W1, W2 and W3: the same shapes at any length, deterministic, with fresh ids, times and numbers.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::fmt::Write;

/// Which workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// Telemetry JSON of 285 bytes, 10,000 devices, nested location: declarative stages.
    W1,
    /// LoRaWAN-like uplinks, 12 to 24 bytes of payload, about 1 % out of range: a decode script and a check.
    W2,
    /// 13 fields, a nested object, an array and 24 bytes of payload, 64 devices: the three scripts of S5.
    W3,
}

/// SplitMix64.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
    /// In `low..high` in steps of `1/scale`.
    pub(crate) fn decimal(&mut self, low: i64, high: i64, scale: i64) -> f64 {
        (low * scale + self.below(((high - low) * scale) as u64) as i64) as f64 / scale as f64
    }
}

impl Workload {
    /// As options and reports call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
        }
    }

    /// Event number `n` as JSON.
    pub fn event(self, n: u64, out: &mut String) {
        let mut random = Random(n.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ self as u64);
        // Writing to a String cannot fail.
        let _ = match self {
            Self::W1 => w1(n, &mut random, out),
            Self::W2 => w2(n, &mut random, out),
            Self::W3 => w3(n, &mut random, out),
        };
    }

    /// A JSON array of the events `from..from + count`.
    pub fn array(self, from: u64, count: u64) -> Vec<u8> {
        let mut out = String::with_capacity(count as usize * 300);
        out.push('[');
        for n in from..from + count {
            if n > from {
                out.push(',');
            }
            self.event(n, &mut out);
        }
        out.push(']');
        out.into_bytes()
    }

    /// Whether event `n` is one that the workload's check refuses.
    pub fn is_bad(self, n: u64) -> bool {
        self == Self::W2 && n % 100 == 99
    }
}

fn stamp(n: u64) -> String {
    let millis = n * 3;
    let (day, hour, minute) = (1 + millis / 86_400_000 % 28, millis / 3_600_000 % 24, millis / 60_000 % 60);
    format!("2026-01-{day:02}T{hour:02}:{minute:02}:{:02}.{:03}Z", millis / 1_000 % 60, millis % 1_000)
}

fn w1(n: u64, r: &mut Random, out: &mut String) -> std::fmt::Result {
    let device = r.below(10_000);
    write!(
        out,
        r#"{{"device":"urn:dev:mac:0024beff{:08x}","seq":{n},"ts":"{}","temperature":{},"humidity":{},"pressure":{:.2},"battery":{:.3},"rssi":-{},"snr":{:.1},"site":"plant-{:02}","fw":"2.{}.{}","loc":{{"lat":{:.6},"lon":{:.6},"alt":{:.1}}}}}"#,
        device * 5_003,
        stamp(n),
        r.decimal(-10, 50, 100),
        r.decimal(5, 95, 10),
        r.decimal(900, 1_040, 100),
        r.decimal(2, 4, 1_000),
        r.below(70) + 50,
        r.decimal(-9, 11, 10),
        r.below(40),
        r.below(9),
        r.below(9),
        r.decimal(47, 55, 1_000_000),
        r.decimal(6, 15, 1_000_000),
        r.decimal(0, 800, 10),
    )
}

fn w2(n: u64, r: &mut Random, out: &mut String) -> std::fmt::Result {
    let port = 1 + r.below(3);
    let temperature = if Workload::W2.is_bad(n) { 9_000 } else { r.below(12_000) as i16 - 4_000 };
    let mut bytes = vec![1u8];
    bytes.extend(temperature.to_be_bytes());
    bytes.extend((r.below(10_000) as u16).to_be_bytes());
    bytes.extend((9_000 + r.below(1_400) as u16).to_be_bytes());
    bytes.extend((2_000 + r.below(1_600) as u16).to_be_bytes());
    bytes.extend((400 + r.below(3_000) as u16).to_be_bytes());
    bytes.push(r.below(256) as u8);
    if port >= 2 {
        bytes.extend((r.below(65_536) as u16).to_be_bytes());
        bytes.extend((n as u16).to_be_bytes());
    }
    if port == 3 {
        bytes.extend((47_000_000 + r.below(8_000_000) as i32).to_be_bytes());
        bytes.extend((6_000_000 + r.below(9_000_000) as i32).to_be_bytes());
    }
    let device = r.below(2_000);
    write!(
        out,
        r#"{{"devEUI":"0024beff{:08x}","fPort":{port},"fCnt":{n},"time":"{}","data":"{}"}}"#,
        device * 33_331,
        stamp(n),
        STANDARD.encode(bytes)
    )
}

fn w3(n: u64, r: &mut Random, out: &mut String) -> std::fmt::Result {
    let mut payload = [0u8; 24];
    payload.iter_mut().for_each(|b| *b = r.below(256) as u8);
    payload[0] = 1;
    payload[2..4].copy_from_slice(&(r.below(8_000) as i16 - 2_000).to_be_bytes());
    payload[4..6].copy_from_slice(&(r.below(10_000) as u16).to_be_bytes());
    let kinds = ["telemetry", "status", "alarm", "join"];
    let base = r.decimal(10, 35, 10);
    write!(
        out,
        r#"{{"id":"evt-{n:06}","device":"dev-{:04}","tenant":"acme","type":"{}","ts":{},"seq":{},"battery":{:.2},"rssi":-{},"snr":{:.2},"active":{},"location":{{"lat":{:.4},"lon":{:.4},"alt":{:.1}}},"readings":[{:.1},{:.1},{:.1},{:.1}],"payload":"{}"}}"#,
        r.below(64),
        kinds[r.below(4) as usize],
        1_767_225_600_123u64 + n * 1_000,
        4_000 + n,
        r.decimal(2, 4, 100),
        r.below(70) + 50,
        r.decimal(-10, 10, 100),
        r.below(2) == 1,
        r.decimal(52, 53, 10_000),
        r.decimal(13, 14, 10_000),
        r.decimal(0, 100, 10),
        base,
        base + r.decimal(0, 1, 10),
        base - r.decimal(0, 1, 10),
        base + r.decimal(0, 1, 10),
        STANDARD.encode(payload)
    )
}
