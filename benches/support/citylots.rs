//! A stand-in for the city lots of San Francisco, which event-ruler is
//! benchmarked with: the same fields, about 870 bytes an event, values as
//! frequent as the matches that its benchmark asserts.

use super::Random;

const STREETS: [(&str, u64); 76] = [
    ("FULTON", 1910),
    ("MASON", 2657),
    ("JEFFERSON", 131),
    ("BEACH", 211),
    ("HYDE", 1758),
    ("CHESTNUT", 825),
    ("ACADIA", 15),
    ("ACTON", 9),
    ("BLAKE", 60),
    ("BLANKEN", 382),
    ("DRUMM", 13),
    ("DRAKE", 25),
    ("FUNSTON", 477),
    ("RHODE ISLAND", 328),
    ("WASHINGTON", 4200),
    ("JACKSON", 2800),
    ("CLAYTON", 1900),
    ("HARRISON", 2400),
    ("FOLSOM", 3000),
    ("LAKE", 786),
    ("SPRING", 400),
    ("FLOOD", 900),
    ("KING", 1563),
    ("VALLEJO", 1800),
    ("MONTICELLO", 500),
    ("SANTIAGO", 682),
    ("UNKNOWN", 5000),
    ("MARKET", 4500),
    ("MISSION", 9000),
    ("CALIFORNIA", 4600),
    ("GEARY", 3800),
    ("NORIEGA", 2400),
    ("JUDAH", 2200),
    ("TARAVAL", 1800),
    ("BALBOA", 2500),
    ("ANZA", 2300),
    ("CABRILLO", 2400),
    ("LINCOLN", 1700),
    ("BROADWAY", 2300),
    ("SACRAMENTO", 3100),
    ("CLAY", 2500),
    ("PINE", 2700),
    ("BUSH", 2900),
    ("SUTTER", 2600),
    ("POST", 2300),
    ("ELLIS", 1900),
    ("EDDY", 1800),
    ("TURK", 2100),
    ("OAK", 2000),
    ("FELL", 1900),
    ("HAYES", 1800),
    ("GROVE", 1500),
    ("PAGE", 2100),
    ("HAIGHT", 1900),
    ("WALLER", 1200),
    ("DUBOCE", 600),
    ("DOLORES", 2300),
    ("GUERRERO", 2200),
    ("VALENCIA", 2100),
    ("CAPP", 1100),
    ("BRYANT", 2400),
    ("YORK", 1400),
    ("ALABAMA", 2000),
    ("TREAT", 900),
    ("POTRERO", 1100),
    ("DE HARO", 1300),
    ("CAROLINA", 1200),
    ("ARKANSAS", 1000),
    ("CONNECTICUT", 1100),
    ("PALOU", 1300),
    ("QUESADA", 1200),
    ("REVERE", 1100),
    ("SHAFTER", 1000),
    ("THOMAS", 900),
    ("UNDERWOOD", 800),
    ("NUMBERED", 114_400),
];

const TYPES: [(&str, u64); 8] = [
    ("ST", 70),
    ("AVE", 16),
    ("BLVD", 3),
    ("WAY", 4),
    ("DR", 3),
    ("CT", 2),
    ("TER", 1),
    ("LN", 1),
];

/// Longitudes: how many lots lie in which strip.
const STRIPS: [(f64, f64, u64); 4] = [
    (-122.515, -122.46471, 223),
    (-122.46471, -122.41601, 476),
    (-122.41600, -122.40631, 120),
    (-122.40630, -122.36, 181),
];

/// Lots that the rules ask for, and how many there are in 213,068.
const SPECIAL: [(&str, u64); 6] = [
    ("1430022", 1),
    ("2607117", 101),
    ("2607218", 35),
    ("3745012", 655),
    ("VACSTWIL", 1),
    ("", 212_275),
];

const POINTS: [u64; 19] = [
    4, 5, 5, 5, 5, 5, 6, 6, 7, 7, 8, 9, 10, 12, 14, 17, 20, 24, 30,
];

fn weights<const N: usize>(all: &[(&str, u64); N]) -> [u64; N] {
    all.map(|(_, weight)| weight)
}

/// The first `count` events.
pub fn events(count: usize) -> Vec<Vec<u8>> {
    let mut random = Random::new(42);
    let streets = weights(&STREETS);
    (0..count)
        .map(|_| event(&mut random, &streets).into_bytes())
        .collect()
}

fn event(random: &mut Random, streets: &[u64]) -> String {
    let block = format!("{:04}", 1 + random.below(8_700));
    let mut lot = format!("{:03}", 1 + random.below(120));
    if random.below(100) == 0 {
        lot.push(*random.pick(&['A', 'B', 'C']));
    }
    let mapped = match SPECIAL[random.weighted(&weights(&SPECIAL))].0 {
        "" => format!("{block}{lot}"),
        special => special.to_owned(),
    };
    let street = match STREETS[random.weighted(streets)].0 {
        "NUMBERED" => format!("{}TH", 4 + random.below(44)),
        name => name.to_owned(),
    };
    let kind = if street == "UNKNOWN" || random.below(50) == 0 {
        "null".to_owned()
    } else if street.ends_with("TH") && random.below(4) < 3 {
        "\"AVE\"".to_owned()
    } else {
        format!("\"{}\"", TYPES[random.weighted(&weights(&TYPES))].0)
    };
    let number = match random.below(1_000) {
        0..4 => "null".to_owned(),
        4..16 => "\"441\"".to_owned(),
        _ => format!("\"{}\"", 1 + random.below(4_000)),
    };
    let multi = random.below(1_775) == 0;
    let shape = if multi { "MultiPolygon" } else { "Polygon" };
    let points = points(random, multi);
    format!(
        "{{\"type\":\"Feature\",\"properties\":{{\"MAPBLKLOT\":\"{mapped}\",\"BLKLOT\":\"{block}{lot}\",\
         \"BLOCK_NUM\":\"{block}\",\"LOT_NUM\":\"{lot}\",\"FROM_ST\":{number},\"TO_ST\":{number},\
         \"STREET\":\"{street}\",\"ST_TYPE\":{kind},\"ODD_EVEN\":\"{}\"}},\"geometry\":{{\"type\":\
         \"{shape}\",\"coordinates\":[{}],\"firstCoordinates\":{}}}}}",
        random.pick(&['E', 'O']),
        points.join(","),
        points[0],
    )
}

fn points(random: &mut Random, multi: bool) -> Vec<String> {
    let strip = STRIPS[random.weighted(&STRIPS.map(|(_, _, weight)| weight))];
    let (x, y) = (
        random.uniform(strip.0, strip.1),
        random.uniform(37.708, 37.811),
    );
    let count = *random.pick(&POINTS);
    let mut points: Vec<(f64, f64)> = (0..count)
        .map(|_| {
            (
                x + random.uniform(-0.0003, 0.0003),
                y + random.uniform(-0.0003, 0.0003),
            )
        })
        .collect();
    points[0] = (x, y);
    if let Some(last) = points.last_mut() {
        if random.below(977) == 0 {
            last.0 = -122.42916360922355;
        }
        if multi && random.below(100) == 0 {
            last.1 = 37.729900216217324;
        }
    }
    points
        .iter()
        .map(|(x, y)| format!("{{\"x\":{x},\"y\":{y},\"z\":0}}"))
        .collect()
}
