//! Request bodies: a body follows from its request and the seed alone, whoever builds it and however often.

use super::devices::{Fate, Make, payload};
use super::random::Random;
use super::schedule::{Form, Request, Stream};
use super::{Device, Expected};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io::Write;
use tidegate_schemas::time::{self, Micros};

const DAY: Micros = time::DAY;

/// Builds bodies.
pub(super) struct Bodies<'a> {
    pub(super) seed: u64,
    pub(super) now: Micros,
    pub(super) devices: &'a [Device],
}

/// A body, and what shall become of its events.
#[derive(Default)]
pub(super) struct Body {
    pub(super) bytes: Vec<u8>,
    /// Events in it, malformed ones included.
    pub(super) events: u64,
    /// Where each is new.
    pub(super) expected: Expected,
}

impl Bodies<'_> {
    /// The body of a request.
    pub(super) fn build(&self, request: &Request) -> Body {
        let mut random = Random::new(self.seed, request.number + 1);
        let mut body = Body::default();
        let array = request.form == Form::Array;
        if array {
            body.bytes.push(b'[');
        }
        let devices: Vec<&Device> = self.devices.iter().filter(|d| d.tenant == request.tenant).collect();
        for i in 0..request.events {
            if i > 0 && array {
                body.bytes.push(b',');
            }
            body.events += 1;
            // Only a line can be malformed by itself: in an array it would spoil the others.
            if request.form == Form::Lines && random.once_in(500) {
                body.bytes.extend_from_slice(b"{\"device\":\"cut off in the mid\n");
                body.expected.malformed += 1;
                continue;
            }
            let id = format!("{:x}-{}-{i}", self.seed, request.number);
            let out = &mut body.bytes;
            // Writing to a Vec cannot fail.
            let fate = match request.stream {
                Stream::Telemetry => self.telemetry(&id, &mut random, out),
                Stream::Lorawan => self.lorawan(&id, &devices, &mut random, out),
                Stream::Motion => self.motion(&id, &mut random, out),
                Stream::Lab => self.lab(&id, i, &mut random, out),
                Stream::Turnstile => {
                    let _ = write!(out, "{{\"meter\":{{\"pulses\":{}}}}}", random.below(50));
                    Fate::Rows
                }
            };
            match fate {
                Fate::Rows => body.expected.transformed += 1,
                Fate::Filtered => body.expected.filtered += 1,
                Fate::Rejected => body.expected.rejected += 1,
            }
            if request.form == Form::Lines {
                body.bytes.push(b'\n');
            }
        }
        if array {
            body.bytes.push(b']');
        }
        if request.spoiled {
            // The whole array is refused: its last bracket is missing.
            body.bytes.pop();
            body.expected = Expected { spoiled: body.events, ..Expected::default() };
        }
        body
    }

    /// The device's own time: the fleet sends what it saw in the last day, and some of it comes days late.
    fn at(&self, random: &mut Random) -> Micros {
        let late = if random.once_in(40) { random.between(3, 6) * DAY } else { 0 };
        self.now - late - random.below(86_400_000) as Micros * 1_000
    }

    fn telemetry(&self, id: &str, random: &mut Random, out: &mut Vec<u8>) -> Fate {
        let (hot, at, device) = (random.once_in(100), self.at(random), random.below(300));
        // Forty plants, from the cold one to the warm one.
        let outdoors = 6.0 + (device % 40) as f64 / 4.0 + day(at, 7.0) + random.between(-100, 100) as f64 / 100.0;
        let temperature = if hot { 412.5 } else { (outdoors * 100.0).round() / 100.0 };
        let _ = write!(
            out,
            "{{\"id\":\"{id}\",\"device\":\"urn:dev:mac:{:016x}\",\"seq\":{},\"ts\":\"{}\",\"temperature\":{temperature},\
             \"humidity\":{},\"pressure\":{},\"battery\":{},\"rssi\":{},\"snr\":{},\"site\":\"plant-{:02}\",\"fw\":\"2.{}.1\",\
             \"loc\":{{\"lat\":{},\"lon\":{},\"alt\":{}}}}}",
            0x0024_beff_0000_0000 + device,
            random.below(1_000_000),
            time::format(at),
            random.between(100, 950) as f64 / 10.0,
            random.between(90_000, 104_000) as f64 / 100.0,
            random.between(2_000, 3_700) as f64 / 1_000.0,
            random.between(-115, -50),
            random.between(-80, 100) as f64 / 10.0,
            device % 40,
            random.below(9),
            random.between(47_000_000, 54_000_000) as f64 / 1e6,
            random.between(6_000_000, 15_000_000) as f64 / 1e6,
            random.between(0, 5_000) as f64 / 10.0,
        );
        if hot { Fate::Rejected } else { Fate::Rows }
    }

    fn lorawan(&self, id: &str, devices: &[&Device], random: &mut Random, out: &mut Vec<u8>) -> Fate {
        let device = devices[random.below(devices.len() as u64) as usize];
        let make = match random.below(300) {
            0..=2 => Make::Broken,
            3..=4 => Make::OutOfRange,
            5..=14 => Make::Silent,
            _ => Make::Good,
        };
        let mut bytes = Vec::with_capacity(24);
        let at = self.at(random);
        let indoors = 21.0 + day(at, 3.0) + random.between(-50, 50) as f64 / 100.0;
        let (port, mut fate) = payload(&device.template, make, indoors, random, &mut bytes);
        let mut data = BASE64.encode(&bytes);
        let mut eui = device.id.as_str();
        match random.below(1_000) {
            0..=1 => (data, fate) = ("*not base64*".to_owned(), Fate::Rejected),
            // Nobody has told Tidegate what this one is.
            2 => (eui, fate) = ("ffffffffffffffff", Fate::Rejected),
            _ => {}
        }
        let _ = write!(
            out,
            "{{\"id\":\"{id}\",\"devEUI\":\"{eui}\",\"fPort\":{port},\"fCnt\":{},\"time\":\"{}\",\"rssi\":{},\"data\":\"{data}\"}}",
            random.below(65_536),
            time::format(at),
            random.between(-120, -40),
        );
        fate
    }

    fn motion(&self, id: &str, random: &mut Random, out: &mut Vec<u8>) -> Fate {
        let at = time::format(self.at(random));
        let (kind, data, fate) = match random.below(10) {
            0..=3 => ("networkStatus", format!("\"signalStrength\":{},\"rssi\":-83", random.below(100)), Fate::Filtered),
            4..=6 => ("deskOccupancy", "\"state\":\"OCCUPIED\"".to_owned(), Fate::Rows),
            7 => ("motion", "\"state\":\"NO_MOTION_DETECTED\"".to_owned(), Fate::Rows),
            _ => ("motion", "\"state\":\"MOTION_DETECTED\"".to_owned(), Fate::Rows),
        };
        let device = random.below(60);
        let _ = write!(
            out,
            "{{\"event\":{{\"eventId\":\"{id}\",\"targetName\":\"projects/demo/devices/{device}\",\"eventType\":\"{kind}\",\
             \"data\":{{\"{kind}\":{{{data},\"updateTime\":\"{at}\"}}}},\"timestamp\":\"{at}\"}},\
             \"labels\":{{\"name\":\"Desk {device}\"}},\
             \"metadata\":{{\"deviceId\":\"emudemo{device:015}\",\"projectId\":\"demo\",\"deviceType\":\"motion\",\"productNumber\":\"\"}}}}",
        );
        fate
    }

    /// Every twenty-fifth event fails in its script, and every twenty-fifth of the loopers never ends by itself.
    fn lab(&self, id: &str, i: u32, random: &mut Random, out: &mut Vec<u8>) -> Fate {
        let device = random.below(12);
        let bad = (i / 2).is_multiple_of(25);
        let pulses = random.below(100);
        let _ = if i.is_multiple_of(2) {
            let meter = if bad { String::new() } else { format!(",\"meter\":{{\"pulses\":{pulses}}}") };
            write!(out, "{{\"id\":\"{id}\",\"kind\":\"counter\",\"device\":\"meter-{device}\"{meter}}}")
        } else {
            let mode = if bad { "spin" } else { "count" };
            write!(out, "{{\"id\":\"{id}\",\"kind\":\"looper\",\"device\":\"meter-{device}\",\"mode\":\"{mode}\",\"pulses\":{pulses}}}")
        };
        if bad { Fate::Rejected } else { Fate::Rows }
    }
}

/// The course of a day: so many degrees above its mean at three in the afternoon, UTC, and as many below at night.
fn day(at: Micros, degrees: f64) -> f64 {
    let turned = (at.rem_euclid(DAY) as f64 / DAY as f64 - 0.375) * std::f64::consts::TAU;
    degrees * turned.sin()
}
