//! Cyclic redundancy checks under the names that data sheets use, each stated in the terms of the Rocksoft model (Williams,
//! "A Painless Guide to CRC Error Detection Algorithms", 1993): width, polynomial, first value, both reflections, last xor.

/// One algorithm. Input and output are reflected together, as in all of those here.
pub(super) struct Crc {
    /// As scripts call it.
    pub(super) name: &'static str,
    width: u32,
    reflected: bool,
    first: u32,
    last: u32,
    table: [u32; 256],
}

/// What scripts can have; the comments say what `"123456789"` gives, as the examples of the guide do.
pub(super) static ALL: [Crc; 10] = [
    Crc::new("crc8", 8, 0x07, 0, false, 0),                              // F4
    Crc::new("crc8_maxim", 8, 0x31, 0, true, 0),                         // A1
    Crc::new("crc16_ccitt", 16, 0x1021, 0xFFFF, false, 0),               // 29B1
    Crc::new("crc16_xmodem", 16, 0x1021, 0, false, 0),                   // 31C3
    Crc::new("crc16_kermit", 16, 0x1021, 0, true, 0),                    // 2189
    Crc::new("crc16_modbus", 16, 0x8005, 0xFFFF, true, 0),               // 4B37
    Crc::new("crc16_arc", 16, 0x8005, 0, true, 0),                       // BB3D
    Crc::new("crc16_en13757", 16, 0x3D65, 0, false, 0xFFFF),             // C2B7
    Crc::new("crc32", 32, 0x04C1_1DB7, 0xFFFF_FFFF, true, 0xFFFF_FFFF),  // CBF43926
    Crc::new("crc32c", 32, 0x1EDC_6F41, 0xFFFF_FFFF, true, 0xFFFF_FFFF), // E3069283
];

impl Crc {
    const fn new(name: &'static str, width: u32, polynomial: u32, first: u32, reflected: bool, last: u32) -> Self {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            // Unreflected registers stand at the top of the word, so that one loop serves every width.
            let mut register = if reflected { byte as u32 } else { (byte as u32) << 24 };
            let mut bit = 0;
            while bit < 8 {
                register = if reflected {
                    let polynomial = polynomial.reverse_bits() >> (32 - width);
                    (register >> 1) ^ if register & 1 == 1 { polynomial } else { 0 }
                } else {
                    (register << 1) ^ if register >> 31 == 1 { polynomial << (32 - width) } else { 0 }
                };
                bit += 1;
            }
            table[byte] = register;
            byte += 1;
        }
        Self { name, width, reflected, first, last, table }
    }

    /// The check of some bytes.
    pub(super) fn of(&self, bytes: &[u8]) -> u32 {
        if self.reflected {
            // A first value of ones or zeros is its own reflection.
            let step = |register: u32, byte: &u8| (register >> 8) ^ self.table[((register ^ u32::from(*byte)) & 0xFF) as usize];
            return bytes.iter().fold(self.first, step) ^ self.last;
        }
        let step = |register: u32, byte: &u8| (register << 8) ^ self.table[((register >> 24) ^ u32::from(*byte)) as usize];
        (bytes.iter().fold(self.first << (32 - self.width), step) >> (32 - self.width)) ^ self.last
    }
}
