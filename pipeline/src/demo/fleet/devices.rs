//! LoRaWAN payloads, as the devices of the demonstration's templates send them: good ones, such as lie outside what the
//! sensor can measure, and broken ones.

use super::random::Random;

/// What a payload shall be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Make {
    Good,
    /// The decoder reads it, a check refuses it.
    OutOfRange,
    /// The decoder cannot read it.
    Broken,
    /// A sign of life that the template leaves out; devices without one send a good payload.
    Silent,
}

/// What a template makes of it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Rows,
    Filtered,
    Rejected,
}

/// The payload of one uplink of a device of this template where it has so many degrees: bytes, port, fate.
pub(super) fn payload(template: &str, make: Make, degrees: f64, random: &mut Random, out: &mut Vec<u8>) -> (u8, Fate) {
    out.clear();
    let tenths = (degrees * 10.0).round() as i16;
    let port = match template {
        "ers" => ers(make, tenths, random, out),
        "lht65" => lht65(make, tenths, random, out),
        "em300-th" => em300_th(make, tenths, random, out),
        "oy1100" => oy1100(make, tenths, random, out),
        "generic-node" => generic_node(make, tenths, random, out),
        "vicki" => vicki(make, random, out),
        "tbms100" => tbms100(make, random, out),
        _ => dl_ctd10(make, random, out),
    };
    let fate = match (template, make) {
        ("tbms100", Make::Silent) => Fate::Filtered,
        (_, Make::Good | Make::Silent) => Fate::Rows,
        (_, Make::OutOfRange | Make::Broken) => Fate::Rejected,
    };
    (port, fate)
}

fn ers(make: Make, tenths: i16, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    if make == Make::Broken {
        out.extend([0x01, 0x00]);
        return 5;
    }
    out.push(0x01);
    out.extend(tenths.to_be_bytes());
    let humidity = if make == Make::OutOfRange { 255 } else { random.between(20, 80) as u8 };
    out.extend([0x02, humidity, 0x04]);
    out.extend((random.between(0, 900) as u16).to_be_bytes());
    out.extend([0x05, random.below(20) as u8, 0x06]);
    out.extend((random.between(400, 1_900) as u16).to_be_bytes());
    out.push(0x07);
    out.extend((random.between(3_000, 3_650) as u16).to_be_bytes());
    5
}

fn lht65(make: Make, tenths: i16, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    out.extend((0xC000 | random.between(2_800, 3_600) as u16).to_be_bytes());
    out.extend((tenths * 10 + random.below(10) as i16).to_be_bytes());
    let humidity = if make == Make::OutOfRange { 2_000 } else { random.between(200, 900) as u16 };
    out.extend(humidity.to_be_bytes());
    out.push(0x01);
    out.extend((random.between(-1_500, 3_000) as i16).to_be_bytes());
    out.extend([0x7F, 0xFF]);
    if make == Make::Broken {
        out.pop();
    }
    2
}

fn em300_th(make: Make, tenths: i16, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    if make == Make::Broken {
        out.extend([0x03, 0x67, 0xC8]);
        return 85;
    }
    out.extend([0x01, 0x75, random.between(20, 100) as u8, 0x03, 0x67]);
    out.extend(tenths.to_le_bytes());
    let humidity = if make == Make::OutOfRange { 255 } else { random.between(40, 180) as u8 };
    out.extend([0x04, 0x68, humidity]);
    85
}

fn oy1100(make: Make, tenths: i16, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    let temperature = if make == Make::OutOfRange { 4_093 } else { tenths as u16 };
    let humidity = random.between(200, 800) as u16;
    out.extend([(temperature >> 4) as u8, (humidity >> 4) as u8, ((temperature & 15) << 4 | humidity & 15) as u8]);
    if make == Make::Broken {
        out.push(0);
    }
    1
}

fn generic_node(make: Make, tenths: i16, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    out.push(random.between(28, 36) as u8);
    let temperature = if make == Make::OutOfRange { 0xFFFF } else { tenths as u16 + 500 };
    out.extend(temperature.to_be_bytes());
    out.extend((random.between(200, 800) as u16).to_be_bytes());
    out.push(u8::from(random.once_in(20)));
    if make == Make::Broken {
        out.pop();
    }
    1
}

fn vicki(make: Make, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    let range = random.between(250, 400) as u16;
    let position = random.between(0, i64::from(range)) as u16;
    out.extend([0x01, random.between(16, 24) as u8, random.between(85, 105) as u8, random.between(60, 180) as u8]);
    out.extend([position as u8, range as u8, ((position >> 8) << 4 | range >> 8) as u8]);
    let broken_sensor = u8::from(make == Make::OutOfRange);
    let open_window = u8::from(random.once_in(15)) << 3;
    out.extend([(random.between(8, 15) as u8) << 4 | open_window | broken_sensor, u8::from(random.once_in(10)) << 7]);
    if make == Make::Broken {
        out.pop();
    }
    1
}

fn tbms100(make: Make, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    if make == Make::Silent {
        out.extend([0; 8]);
        return 102;
    }
    out.extend([random.below(2) as u8, 0xB0 | random.between(5, 11) as u8, random.between(47, 58) as u8]);
    out.extend((random.below(600) as u16).to_le_bytes());
    out.extend(&(random.below(100_000) as u32).to_le_bytes()[..3]);
    // Nothing that it measures can be out of range; an unknown port is what its decoder refuses.
    if make == Make::Good { 102 } else { 42 }
}

fn dl_ctd10(make: Make, random: &mut Random, out: &mut Vec<u8>) -> u8 {
    out.push(if make == Make::Broken { 1 } else { 2 });
    out.extend((random.below(5_000) as u16).to_be_bytes());
    out.extend([0x00, 0x03]);
    out.extend((32_768 + random.between(0, 5_000) as u16).to_be_bytes());
    let temperature = if make == Make::OutOfRange { 0xFFFF } else { 32_768 + random.between(20, 220) as u16 };
    out.extend(temperature.to_be_bytes());
    out.extend((random.between(80, 600) as u16).to_be_bytes());
    out.extend([0x00, 0x00]);
    out.extend((random.between(2_900, 3_600) as u16).to_be_bytes());
    6
}
