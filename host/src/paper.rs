//! Invoices as PDF: one A4 page, or more where the lines need them.
//!
//! The fonts are those that every reader has, so nothing is embedded and the bytes follow from the invoice alone. They hold the
//! letters of Western Europe (Windows-1252); what is written in others is transliterated into ASCII, a sign without a likeness
//! becomes a question mark.

use deunicode::deunicode_char;
use jiff::Timestamp;
use pdf_writer::{Content, Finish, Name, Pdf, Rect, Ref, Str, TextStr};
use provisor_providers::books::InvoiceStatus;
use provisor_providers::money::Minor;
use provisor_providers::server::Paper;

/// A4 in points, and what stays white around it.
const WIDTH: f32 = 595.0;
const HEIGHT: f32 = 842.0;
const MARGIN: f32 = 56.0;
/// Where the columns of numbers end.
const RIGHT: f32 = WIDTH - MARGIN;
const EACH: f32 = RIGHT - 90.0;
const QUANTITY: f32 = EACH - 90.0;
/// Where the second column of the head begins.
const MIDDLE: f32 = 330.0;
const LINE: f32 = 14.0;
const SIZE: f32 = 10.0;
/// The widest text of a line, and of the seller and buyer.
const TEXT: f32 = QUANTITY - MARGIN - 50.0;
const PARTY: f32 = MIDDLE - MARGIN - 20.0;

/// The PDF of an invoice.
pub fn print(paper: &Paper) -> Vec<u8> {
    let mut sheet = Sheet::new();
    head(&mut sheet, paper);
    lines(&mut sheet, paper);
    totals(&mut sheet, paper);
    sheet.finish(&paper.invoice.number())
}

fn head(sheet: &mut Sheet, paper: &Paper) {
    let (invoice, buyer) = (&paper.invoice, &paper.buyer);
    sheet.put(MARGIN, Font::Bold, 22.0, "Invoice");
    sheet.put(MIDDLE, Font::Bold, 12.0, &invoice.number());
    sheet.down(2.0 * LINE);
    let mut facts = vec![
        ("Issued", day(invoice.new.issued_at)),
        ("Payable until", day(invoice.new.due_at)),
        ("Customer", buyer.id.0.to_string()),
    ];
    facts.extend(invoice.new.order_id.map(|order| ("Order", order.to_string())));
    facts.extend(invoice.new.renews.map(|(service, _)| ("Service", service.to_string())));
    let top = sheet.y;
    for (name, fact) in &facts {
        sheet.put(MIDDLE, Font::Plain, SIZE, name);
        sheet.put(MIDDLE + 90.0, Font::Plain, SIZE, fact);
        sheet.down(LINE);
    }
    let end = sheet.y;
    sheet.y = top;
    party(sheet, "From", &invoice.new.seller);
    sheet.down(LINE / 2.0);
    party(sheet, "To", &format!("{}\n{}", buyer.name, buyer.email));
    sheet.y = sheet.y.min(end);
    sheet.down(LINE);
}

fn party(sheet: &mut Sheet, role: &str, who: &str) {
    sheet.put(MARGIN, Font::Bold, SIZE, role);
    sheet.down(LINE);
    for line in who.lines().flat_map(|line| wrap(line, PARTY)) {
        sheet.put(MARGIN, Font::Plain, SIZE, &line);
        sheet.down(LINE);
    }
}

fn lines(sheet: &mut Sheet, paper: &Paper) {
    let new = &paper.invoice.new;
    sheet.put(MARGIN, Font::Bold, SIZE, "Description");
    sheet.put_left_of(QUANTITY, Font::Bold, "Quantity");
    sheet.put_left_of(EACH, Font::Bold, "Each");
    sheet.put_left_of(RIGHT, Font::Bold, &format!("Amount {}", new.currency));
    sheet.rule();
    for line in &new.lines {
        sheet.put_left_of(QUANTITY, Font::Plain, &line.quantity.to_string());
        sheet.put_left_of(EACH, Font::Plain, &line.each.to_string());
        let amount = line.each.times(line.quantity).unwrap_or(Minor::ZERO);
        sheet.put_left_of(RIGHT, Font::Plain, &amount.to_string());
        for part in wrap(&line.text, TEXT) {
            sheet.put(MARGIN, Font::Plain, SIZE, &part);
            sheet.down(LINE);
        }
    }
    sheet.y += LINE - 4.0;
    sheet.rule();
}

fn totals(sheet: &mut Sheet, paper: &Paper) {
    let (invoice, new) = (&paper.invoice, &paper.invoice.new);
    let percent = Minor(new.tax.basis_points.into());
    for (name, amount, font) in [
        ("Net".to_owned(), invoice.net(), Font::Plain),
        (format!("Tax {percent} %"), new.tax.amount, Font::Plain),
        (format!("Total {}", new.currency), new.total, Font::Bold),
    ] {
        sheet.put(MIDDLE, font, SIZE, &name);
        sheet.put_left_of(RIGHT, font, &amount.to_string());
        sheet.down(LINE);
    }
    sheet.down(LINE);
    let stamp = match (invoice.status, invoice.paid_at) {
        (InvoiceStatus::Paid, Some(at)) => format!("PAID {}", day(at)),
        (InvoiceStatus::Paid, None) => "PAID".to_owned(),
        (InvoiceStatus::Unpaid, _) => "UNPAID".to_owned(),
        (InvoiceStatus::Cancelled, _) => "CANCELLED".to_owned(),
    };
    sheet.put(MARGIN, Font::Bold, 16.0, &stamp);
    sheet.down(2.0 * LINE);
    sheet.put(MARGIN, Font::Plain, 8.0, "Prices include the tax, which is rounded once, on the total.");
}

/// In UTC, as everything in the books.
fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

#[derive(Debug, Clone, Copy)]
enum Font {
    Plain,
    Bold,
}

impl Font {
    const ALL: [(Self, &'static [u8], &'static [u8]); 2] =
        [(Self::Plain, b"P", b"Helvetica"), (Self::Bold, b"B", b"Helvetica-Bold")];

    fn name(self) -> Name<'static> {
        match self {
            Self::Plain => Name(b"P"),
            Self::Bold => Name(b"B"),
        }
    }
}

/// Pages that are written from top to bottom.
struct Sheet {
    pages: Vec<Content>,
    page: Content,
    y: f32,
}

impl Sheet {
    fn new() -> Self {
        Self { pages: Vec::new(), page: Content::new(), y: HEIGHT - MARGIN - LINE }
    }

    fn put(&mut self, x: f32, font: Font, size: f32, text: &str) {
        self.page.begin_text();
        self.page.set_font(font.name(), size).next_line(x, self.y).show(Str(&encode(text)));
        self.page.end_text();
    }

    /// Puts a text so that it ends at `x`.
    fn put_left_of(&mut self, x: f32, font: Font, text: &str) {
        self.put(x - width(&encode(text)), font, SIZE, text);
    }

    fn down(&mut self, by: f32) {
        self.y -= by;
        if self.y < MARGIN {
            self.pages.push(std::mem::replace(&mut self.page, Content::new()));
            self.y = HEIGHT - MARGIN - LINE;
        }
    }

    /// A line across the page, and the next line of text below it.
    fn rule(&mut self) {
        let y = self.y - 4.0;
        self.page.set_line_width(0.5).move_to(MARGIN, y).line_to(RIGHT, y).stroke();
        self.down(LINE + 4.0);
    }

    fn finish(mut self, title: &str) -> Vec<u8> {
        self.pages.push(self.page);
        let mut next = 1;
        let mut id = || {
            next += 1;
            Ref::new(next - 1)
        };
        let (catalog, tree, info) = (id(), id(), id());
        let fonts = Font::ALL.map(|(_, name, base)| (id(), name, base));
        let pages: Vec<(Ref, Ref, Content)> = self.pages.into_iter().map(|page| (id(), id(), page)).collect();
        let mut pdf = Pdf::new();
        pdf.catalog(catalog).pages(tree);
        pdf.document_info(info).title(TextStr(title)).producer(TextStr("Provisor"));
        pdf.pages(tree).kids(pages.iter().map(|(page, ..)| *page)).count(i32::try_from(pages.len()).unwrap_or(i32::MAX));
        for (font, _, base) in fonts {
            pdf.type1_font(font).base_font(Name(base)).encoding_predefined(Name(b"WinAnsiEncoding"));
        }
        for (id, text, content) in pages {
            let mut page = pdf.page(id);
            page.media_box(Rect::new(0.0, 0.0, WIDTH, HEIGHT)).parent(tree).contents(text);
            let mut resources = page.resources();
            resources.fonts().pairs(fonts.map(|(font, name, _)| (Name(name), font)));
            resources.finish();
            page.finish();
            pdf.stream(text, &content.finish());
        }
        pdf.finish()
    }
}

/// What Windows-1252 has between 0x80 and 0x9f.
const ODD: [(char, u8); 27] = [
    ('€', 0x80),
    ('‚', 0x82),
    ('ƒ', 0x83),
    ('„', 0x84),
    ('…', 0x85),
    ('†', 0x86),
    ('‡', 0x87),
    ('ˆ', 0x88),
    ('‰', 0x89),
    ('Š', 0x8a),
    ('‹', 0x8b),
    ('Œ', 0x8c),
    ('Ž', 0x8e),
    ('‘', 0x91),
    ('’', 0x92),
    ('“', 0x93),
    ('”', 0x94),
    ('•', 0x95),
    ('–', 0x96),
    ('—', 0x97),
    ('˜', 0x98),
    ('™', 0x99),
    ('š', 0x9a),
    ('›', 0x9b),
    ('œ', 0x9c),
    ('ž', 0x9e),
    ('Ÿ', 0x9f),
];

/// A text in Windows-1252, transliterated where that has no such letter.
fn encode(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            ' '..='~' | '\u{a0}'..='\u{ff}' => bytes.push(u8::try_from(u32::from(letter)).unwrap_or(b'?')),
            letter if letter.is_control() => bytes.push(b' '),
            letter => match ODD.iter().find(|(odd, _)| *odd == letter) {
                Some((_, byte)) => bytes.push(*byte),
                None => bytes.extend(deunicode_char(letter).unwrap_or("?").bytes()),
            },
        }
    }
    bytes
}

/// The widths of Helvetica from the blank to the tilde, in thousandths of the size; digits, points and minus signs are as wide in
/// bold.
const WIDTHS: [u16; 95] = [
    278, 278, 355, 556, 556, 889, 667, 191, 333, 333, 389, 584, 278, 333, 278, 278, 556, 556, 556, 556, 556, 556, 556, 556, 556,
    556, 278, 278, 584, 584, 584, 556, 1015, 667, 667, 722, 722, 667, 611, 778, 722, 278, 500, 667, 556, 833, 722, 778, 667, 778,
    722, 667, 611, 722, 667, 944, 667, 667, 611, 278, 278, 278, 469, 556, 333, 556, 556, 500, 556, 556, 278, 556, 556, 222, 222,
    500, 222, 833, 556, 556, 556, 556, 333, 500, 278, 556, 500, 722, 500, 500, 500, 334, 260, 334, 584,
];
/// Of a letter that is not in the table: none is much wider.
const OTHER_WIDTH: u16 = 667;

/// How wide an encoded text is at the usual size, in points.
fn width(text: &[u8]) -> f32 {
    let of = |byte: &u8| {
        let place = usize::from(*byte).checked_sub(0x20);
        place.and_then(|place| WIDTHS.get(place)).copied().unwrap_or(OTHER_WIDTH)
    };
    text.iter().map(|byte| f32::from(of(byte))).sum::<f32>() * SIZE / 1000.0
}

/// Breaks a text into lines no wider than `max`, between words where it can. At least one line.
fn wrap(text: &str, max: f32) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |text: &str| width(&encode(text)) <= max;
        let last = lines.last().map(String::as_str).unwrap_or_default();
        let joined = if last.is_empty() { word.to_owned() } else { format!("{last} {word}") };
        if fits(&joined) {
            lines.pop();
            lines.push(joined);
            continue;
        }
        if last.is_empty() {
            lines.pop();
        }
        let mut part = String::new();
        for letter in word.chars() {
            part.push(letter);
            if !fits(&part) && part.chars().nth(1).is_some() {
                part.pop();
                lines.push(std::mem::take(&mut part));
                part.push(letter);
            }
        }
        lines.push(part);
    }
    lines
}

#[cfg(test)]
mod tests {
    use provisor_providers::books::{Account, AccountId, Invoice, InvoiceLine, NewInvoice, Tax};

    use super::*;

    fn paper(name: &str, lines: usize) -> Paper {
        let at: Timestamp = "2027-01-31T08:00:00Z".parse().unwrap();
        let line = InvoiceLine { text: "KVM S, monthly".to_owned(), quantity: 2, each: Minor(595) };
        let new = NewInvoice {
            total: Minor(1190),
            tax: Tax { basis_points: 1900, amount: Minor(190) },
            currency: "EUR".to_owned(),
            lines: vec![line; lines],
            seller: "Seller (Ltd)\n1 Street \\ Town".into(),
            order_id: Some(7),
            renews: None,
            issued_at: at,
            due_at: at,
        };
        let invoice = Invoice { id: 123, new, status: InvoiceStatus::Paid, paid_at: Some(at) };
        let buyer = Account {
            id: AccountId(1),
            email: "a@example.com".to_owned(),
            name: name.to_owned(),
            currency: "EUR".to_owned(),
            balance: Minor(0),
            has_card: false,
            is_closed: false,
            listens: false,
        };
        Paper { invoice, buyer }
    }

    #[test]
    fn the_same_invoice_has_the_same_bytes() {
        assert_eq!(print(&paper("Zoë", 1)), print(&paper("Zoë", 1)));
        assert_ne!(print(&paper("Zoë", 1)), print(&paper("Zoe", 1)));
        assert!(print(&paper("Zoë", 1)).starts_with(b"%PDF-1."));
    }

    #[test]
    fn names_in_any_script_are_written_somehow() {
        assert_eq!(encode("Zoë €1 – Š"), b"Zo\xeb \x801 \x96 \x8a");
        assert_eq!(encode("Ελλάδα"), b"Ellada");
        assert_eq!(encode("Москва"), b"Moskva");
        assert_eq!(encode("Łódź"), b"L\xf3dz");
        assert_eq!(encode("a\u{1b}b\tc"), b"a b c");
        assert!(encode("東京株式会社").iter().all(u8::is_ascii_graphic) || encode("東京株式会社").is_ascii());
        assert_eq!(encode("\u{e000}"), b"?");
    }

    #[test]
    fn long_texts_are_broken_and_long_lists_go_on_overleaf() {
        let long = "word ".repeat(100) + &"x".repeat(300);
        let lines = wrap(&long, TEXT);
        assert!(lines.len() > 5 && lines.iter().all(|line| width(&encode(line)) <= TEXT), "{lines:?}");
        assert_eq!(lines.concat().replace(' ', ""), long.replace(' ', ""));
        assert_eq!(wrap("", TEXT), [""]);
        let pages = |lines| print(&paper("A", lines)).windows(11).filter(|part| part == b"/Type /Page").count() - 1;
        assert_eq!((pages(1), pages(100)), (1, 3));
    }
}
