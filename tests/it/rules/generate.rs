//! Random patterns and events, as nasty as they come.
//!
//! A generator makes its choices from given bytes, so that a failing case
//! shrinks by shrinking the bytes, and a fuzzer can steer it. Out of bytes, it
//! makes the first choice, which is always the simplest.

use std::fmt::Write;

pub struct Gen<'b> {
    bytes: &'b [u8],
    depth: usize,
}

const KEYS: [&str; 14] = [
    "a", "b", "c", "d", "d.e", "e", "a.b", "", "é", "k\"q", "sp ace", "0", "A", "b.c.d",
];

const STRINGS: [&str; 48] = [
    "a",
    "b",
    "",
    "ab",
    "abc",
    "abcabc",
    "aab",
    "aaaaaaaaab",
    "A",
    "ABC",
    "aXb",
    "a*b",
    "a b",
    "*",
    "**",
    "\\",
    "a\\b",
    "\\*",
    "\"",
    "a\"b",
    "nl\n",
    "tab\tx",
    "\u{0}z",
    "é",
    "É",
    "éclair",
    "ß",
    "straße",
    "STRASSE",
    "Straße",
    "ı",
    "I",
    "i",
    "İstanbul",
    "k",
    "\u{212A}",
    "ſ",
    "S",
    "😀",
    "??",
    "𐐀",
    "𐐨",
    "ǅ",
    "true",
    "null",
    "300",
    "running",
    "Running",
];

const ADDRESSES: [&str; 16] = [
    "10.0.0.1",
    "010.0.0.1",
    "10.0.0.255",
    "10.0.1.0",
    "192.168.1.77",
    "300.1.1.1",
    "1.2.3",
    "100.64.0.7",
    "255.255.255.255",
    "0.0.0.0",
    "::1",
    "2001:db8::1",
    "2001:0DB8:0:0:0:0:0:1",
    "::ffff:a00:1",
    "::ffff:10.0.0.1",
    "fe80::1",
];

const BLOCKS: [&str; 13] = [
    "10.0.0.0/24",
    "10.0.0.77/24",
    "10.0.0.1/31",
    "0.0.0.0/0",
    "100.64.0.0/10",
    "16.0.0.0/4",
    "192.168.0.0/16",
    "::/0",
    "::1/64",
    "2001:db8::/32",
    "fe80::/10",
    "::ffff:a00:0/8",
    "1000::/4",
];

/// Spellings that can be compared.
const NUMBERS: [&str; 30] = [
    "0",
    "1",
    "-1",
    "2",
    "300",
    "300.0",
    "3e2",
    "3.0E+2",
    "3E2",
    "-0",
    "-0.0",
    "0e5",
    "0E5",
    "0.1",
    "0.10",
    "1e-1",
    "0.3",
    "0.30000000000000004",
    "42.5",
    "-5",
    "5e9",
    "5000000001",
    "645",
    "6441000000",
    "1e16",
    "9007199254740992",
    "37.80780792169409",
    "0.0000005",
    "1.7976931348623157e308",
    "-122.42916360922355",
];

/// Spellings that cannot.
const INCOMPARABLE: [&str; 11] = [
    "9007199254740993",
    "37.807807921694092",
    "1e400",
    "-1e309",
    "1e-400",
    "123456789012345678",
    "18446744073709551616",
    "3.141592653589793238",
    "9223372036854775807",
    "645000000000000000001",
    "0.1000000000000000055511151231257827",
];

impl<'b> Gen<'b> {
    pub fn new(bytes: &'b [u8]) -> Self {
        Gen { bytes, depth: 0 }
    }

    /// A number below `below`.
    fn choose(&mut self, below: usize) -> usize {
        match self.bytes.split_first() {
            Some((byte, rest)) => {
                self.bytes = rest;
                usize::from(*byte) % below
            }
            None => 0,
        }
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.choose(times) == times - 1
    }

    fn pick<'s>(&mut self, all: &[&'s str]) -> &'s str {
        all[self.choose(all.len())]
    }

    /// Writes a string as JSON, now and then with needless escapes.
    fn quote(&mut self, text: &str) -> String {
        let mut out = String::from("\"");
        let escape = self.one_in(6);
        for c in text.chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                _ if c < ' ' || (escape && self.one_in(2)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string can't fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(c),
            }
        }
        if self.one_in(60) {
            out.push_str("\\ud83d");
        }
        out + "\""
    }

    fn space(&mut self) -> &'static str {
        if self.one_in(12) {
            self.pick(&[" ", "\n", "\t ", "  \r\n"])
        } else {
            ""
        }
    }

    fn key(&mut self) -> String {
        let few = if self.one_in(4) { KEYS.len() } else { 3 };
        let key = self.pick(&KEYS[..few]);
        self.quote(key)
    }

    fn text(&mut self) -> String {
        match self.choose(8) {
            0..4 => self.pick(&STRINGS).to_owned(),
            4 => self.pick(&ADDRESSES).to_owned(),
            5 => format!("{}{}", self.pick(&STRINGS), self.pick(&STRINGS)),
            6 => self.pick(&STRINGS).to_uppercase(),
            _ => format!("{}/{}", self.pick(&ADDRESSES), self.choose(30)),
        }
    }

    fn number(&mut self) -> &'static str {
        if self.one_in(5) {
            self.pick(&INCOMPARABLE)
        } else {
            self.pick(&NUMBERS)
        }
    }

    fn scalar(&mut self) -> String {
        match self.choose(10) {
            0..5 => {
                let text = self.text();
                self.quote(&text)
            }
            5..8 => self.number().to_owned(),
            8 => self.pick(&["true", "false"]).to_owned(),
            _ => "null".to_owned(),
        }
    }

    fn list(&mut self, most: usize, item: impl Fn(&mut Self) -> String) -> String {
        let mut out = String::new();
        for i in 0..self.choose(most + 1) {
            if i > 0 {
                out.push(',');
            }
            out.push_str(self.space());
            out.push_str(&item(self));
            out.push_str(self.space());
        }
        out
    }

    fn value(&mut self) -> String {
        let choice = if self.depth > 4 { 0 } else { self.choose(10) };
        self.depth += 1;
        let value = match choice {
            0..5 => self.scalar(),
            5..8 => self.object(4),
            _ => format!("[{}]", self.list(4, Self::value)),
        };
        self.depth -= 1;
        value
    }

    fn object(&mut self, most: usize) -> String {
        let members = self.list(most, |g| {
            let (key, space) = (g.key(), g.space());
            format!("{key}{space}:{}", g.value())
        });
        format!("{{{members}}}")
    }

    /// An event: a valid object.
    pub fn event(&mut self) -> String {
        self.object(8)
    }

    /// A pattern that is valid (but for its complexity).
    pub fn pattern(&mut self) -> String {
        self.depth = 0;
        self.pattern_object()
    }

    fn pattern_object(&mut self) -> String {
        self.depth += 1;
        let mut members = Vec::new();
        for _ in 0..=self.choose(6).saturating_sub(3) {
            let key = self.key();
            let member = match self.choose(8) {
                0..5 => format!("{key}:{}", self.clauses()),
                5 if self.depth < 3 => format!("\"$or\":{}", self.or()),
                _ if self.depth < 4 => format!("{key}:{}", self.pattern_object()),
                _ => format!("{key}:{}", self.clauses()),
            };
            members.push(member);
        }
        self.depth -= 1;
        format!("{{{}}}", members.join(","))
    }

    fn or(&mut self) -> String {
        let count = 2 + self.choose(2);
        let branches: Vec<String> = (0..count).map(|_| self.pattern_object()).collect();
        format!("[{}]", branches.join(","))
    }

    fn clauses(&mut self) -> String {
        let count = if self.one_in(2) {
            1 + self.choose(3)
        } else {
            1
        };
        let clauses: Vec<String> = (0..count).map(|_| self.clause()).collect();
        format!("[{}]", clauses.join(","))
    }

    fn clause(&mut self) -> String {
        match self.choose(16) {
            0..3 => self.scalar(),
            3 => {
                let text = self.text();
                format!("{{\"exactly\":{}}}", self.quote(&text))
            }
            4 => format!("{{\"prefix\":{}}}", self.part()),
            5 => format!("{{\"suffix\":{}}}", self.part()),
            6 => {
                let affix = self.pick(&["prefix", "suffix"]);
                format!("{{\"{affix}\":{{\"equals-ignore-case\":{}}}}}", self.part())
            }
            7 => format!("{{\"equals-ignore-case\":{}}}", self.folded()),
            8 => format!("{{\"wildcard\":{}}}", self.wildcard()),
            9 | 10 => format!("{{\"numeric\":{}}}", self.range()),
            11 => format!("{{\"cidr\":\"{}\"}}", self.pick(&BLOCKS)),
            12 => format!("{{\"exists\":{}}}", self.pick(&["true", "false"])),
            _ => format!("{{\"anything-but\":{}}}", self.excluded()),
        }
    }

    /// A part of a string, perhaps in another case.
    fn part(&mut self) -> String {
        let text = self.text();
        let chars: Vec<char> = text.chars().collect();
        let from = self.choose(chars.len() + 1).min(2);
        let to = chars.len() - self.choose(chars.len() + 1).min(2);
        let part: String = chars.get(from..to).unwrap_or_default().iter().collect();
        self.quote(&part)
    }

    fn folded(&mut self) -> String {
        let text = self.text();
        let text = if self.one_in(2) {
            text.to_uppercase()
        } else {
            text
        };
        self.quote(&text)
    }

    fn wildcard(&mut self) -> String {
        let text = self.text();
        let mut pattern = String::new();
        let mut star = false;
        for c in text.chars() {
            if !star && self.one_in(4) {
                star = true;
                pattern.push('*');
                if self.one_in(2) {
                    continue;
                }
            }
            if matches!(c, '*' | '\\') {
                pattern.push('\\');
            }
            star = false;
            pattern.push(c);
        }
        if !star && self.one_in(3) {
            pattern.push('*');
        }
        self.quote(&pattern)
    }

    fn range(&mut self) -> String {
        let number = self.pick(&NUMBERS);
        match self.choose(7) {
            0 => format!("[\"=\",{number}]"),
            1 => format!("[\"<\",{number}]"),
            2 => format!("[\"<=\",{number}]"),
            3 => format!("[\">\",{number}]"),
            4 => format!("[\">=\",{number}]"),
            _ => {
                let (lower, upper) = (self.pick(&[">", ">="]), self.pick(&["<", "<="]));
                let other = self.pick(&NUMBERS);
                let value = |text: &str| text.parse::<f64>().unwrap_or_default();
                if value(number) == value(other) {
                    return format!("[\"{lower}\",{number}]");
                }
                let (low, high) = if value(number) < value(other) {
                    (number, other)
                } else {
                    (other, number)
                };
                format!("[\"{lower}\",{low},\"{upper}\",{high}]")
            }
        }
    }

    fn excluded(&mut self) -> String {
        let several = self.one_in(2);
        let items = |g: &mut Self, item: fn(&mut Self) -> String| {
            if !several {
                return item(g);
            }
            let count = 1 + g.choose(3);
            let items: Vec<String> = (0..count).map(|_| item(g)).collect();
            format!("[{}]", items.join(","))
        };
        fn text(g: &mut Gen<'_>) -> String {
            let text = g.text();
            g.quote(&text)
        }
        fn affix(g: &mut Gen<'_>) -> String {
            match g.part() {
                empty if empty == "\"\"" => "\"a\"".to_owned(),
                part => part,
            }
        }
        match self.choose(6) {
            0 => items(self, text),
            1 => items(self, |g| g.pick(&NUMBERS).to_owned()),
            2 => format!("{{\"prefix\":{}}}", items(self, affix)),
            3 => format!("{{\"suffix\":{}}}", items(self, affix)),
            4 => format!("{{\"equals-ignore-case\":{}}}", items(self, Self::folded)),
            _ => format!("{{\"wildcard\":{}}}", items(self, Self::wildcard)),
        }
    }
}
