//! What is on sale: products with their prices, firewall packages with theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use provisor_providers::books::{ConfigOption, FREE_PACKAGE, Fault, Package, Price, Product};
use provisor_providers::money::Minor;
use serde::Deserialize;

use super::sql::{Row, Sql};
use super::{Transaction, licenses};

/// The catalogue a new book starts with, in the form that `product import` reads.
const DEFAULT: &str = include_str!("catalogue.toml");

/// A file of products and packages.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Catalogue {
    /// Products, by id: one that exists is replaced.
    #[serde(default, rename = "product")]
    pub products: Vec<NewProduct>,
    /// Packages, lowest first; a file that has any replaces the whole list.
    #[serde(default, rename = "package")]
    pub packages: Vec<NewPackage>,
}

/// A product to be put on sale.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewProduct {
    /// What orders name.
    pub id: i64,
    /// For people.
    pub name: String,
    /// Which kind.
    pub family: Family,
    /// For people.
    #[serde(default)]
    pub description: String,
    /// How many there are; absent for no limit.
    #[serde(default)]
    pub stock: Option<u32>,
    /// At least one.
    pub prices: Vec<NewPrice>,
    /// What may or must be chosen.
    #[serde(default, rename = "option")]
    pub options: Vec<ConfigOption>,
}

/// KernelHost's product families (spec 1).
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Virtual root servers.
    Kvm,
    /// Whole machines.
    Dedicated,
    /// Web hosting.
    Webspace,
    /// Game servers.
    Minecraft,
    /// Private networks.
    Vpn,
    /// Traffic without a limit, for a server.
    Traffic,
}

/// A price for one cycle in one currency.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPrice {
    /// Such as `monthly`.
    pub cycle: String,
    /// ISO 4217.
    pub currency: String,
    /// Decimal text.
    pub price: String,
    /// Decimal text; nothing unless given.
    #[serde(default)]
    pub setup_fee: Option<String>,
}

/// A firewall package to be put on sale.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewPackage {
    /// Such as `10k`.
    pub name: String,
    /// For a month, by currency, as decimal text.
    pub prices: BTreeMap<String, String>,
}

/// Why a catalogue cannot be imported. Nothing of it was.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// Not the form this program reads; the text names line, column and key.
    #[error("{0}")]
    Form(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("{item}: {what}")]
    Value {
        /// Which product or package.
        item: String,
        /// What is wrong with it.
        what: String,
    },
}

impl Catalogue {
    /// Reads and checks a catalogue.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let catalogue: Self = toml::from_str(text)?;
        let mut ids = BTreeSet::new();
        for product in &catalogue.products {
            let complain = |what: String| CatalogueError::Value { item: format!("product {}", product.id), what };
            if product.id < 1 || !ids.insert(product.id) {
                return Err(complain("ids are positive and occur once".to_owned()));
            }
            product.check().map_err(complain)?;
        }
        let mut names = BTreeSet::new();
        for package in &catalogue.packages {
            let complain = |what: String| CatalogueError::Value { item: format!("package {}", package.name), what };
            if package.name.is_empty() || !names.insert(package.name.to_ascii_lowercase()) {
                return Err(complain("names are not empty and occur once, whatever their case".to_owned()));
            }
            package.prices.values().try_for_each(|price| amount(price).map(drop)).map_err(complain)?;
            let costs = |price: &String| amount(price).is_ok_and(|price| price > Minor::ZERO);
            if package.name == FREE_PACKAGE && package.prices.values().any(costs) {
                return Err(complain("this is the package that costs nothing".to_owned()));
            }
        }
        Ok(catalogue)
    }
}

impl NewProduct {
    fn check(&self) -> Result<(), String> {
        if self.prices.is_empty() {
            return Err("it has no price".to_owned());
        }
        for price in &self.prices {
            amount(&price.price)?;
            price.setup_fee.as_deref().map(amount).transpose()?;
        }
        let pays = |option: &&ConfigOption| {
            let mut prices = option.choices.iter().flat_map(|choice| choice.prices.values());
            prices.any(|price| *price < Minor::ZERO)
        };
        if let Some(option) = self.options.iter().find(pays) {
            return Err(format!("option {}: what a choice adds is not negative", option.name));
        }
        Ok(())
    }
}

fn amount(text: &str) -> Result<Minor, String> {
    text.parse::<Minor>().ok().filter(|amount| amount.0 >= 0).ok_or_else(|| format!("`{text}` is not an amount such as 12.90"))
}

impl Transaction<'_> {
    /// Puts a checked catalogue on sale. A list of packages that lacks one which a reseller has, or its price, is refused: it could not
    /// be renewed.
    pub fn import(&mut self, catalogue: &Catalogue) -> Result<(), Fault> {
        self.sql.forget()?;
        for product in &catalogue.products {
            self.put_product(product)?;
        }
        if !catalogue.packages.is_empty() {
            self.strands_nobody(&catalogue.packages)?;
            self.sql.batch("DELETE FROM package_prices; DELETE FROM packages")?;
        }
        for (rank, package) in (0_u32..).zip(&catalogue.packages) {
            self.sql.execute("INSERT INTO packages (name, rank) VALUES ($1, $2)", &[(&package.name).into(), rank.into()])?;
            for (currency, price) in &package.prices {
                self.sql.execute(
                    "INSERT INTO package_prices (package, currency, price) VALUES ($1, $2, $3)",
                    &[(&package.name).into(), currency.into(), amount(price).map_err(Fault)?.0.into()],
                )?;
            }
        }
        Ok(())
    }

    /// What has a price now and none in a new list must not be in use.
    fn strands_nobody(&mut self, list: &[NewPackage]) -> Result<(), Fault> {
        for Package { name, prices, .. } in packages(self.sql)? {
            let new = list.iter().find(|package| package.name == name);
            for (currency, _) in prices {
                let stays = new.is_some_and(|package| package.prices.contains_key(&currency));
                if !stays && licenses::is_in_use(self.sql, &name, &currency)? {
                    return Err(Fault(format!(
                        "resellers have the package {name} and pay in {currency}: it keeps its name and a price"
                    )));
                }
            }
        }
        Ok(())
    }

    /// Sets what a package of the list costs for a month in one currency, or that it is not on sale there: then false, and nothing
    /// changed, if a reseller has it who pays in that currency.
    pub fn set_package_price(&mut self, package: &str, currency: &str, price: Option<Minor>) -> Result<bool, Fault> {
        if price.is_none() && licenses::is_in_use(self.sql, package, currency)? {
            return Ok(false);
        }
        let delete = "DELETE FROM package_prices WHERE package = $1 AND currency = $2";
        self.sql.execute(delete, &[package.into(), currency.into()])?;
        if let Some(price) = price {
            let insert = "INSERT INTO package_prices (package, currency, price) VALUES ($1, $2, $3)";
            self.sql.execute(insert, &[package.into(), currency.into(), price.0.into()])?;
        }
        Ok(true)
    }

    fn put_product(&mut self, product: &NewProduct) -> Result<(), Fault> {
        let options = serde_json::to_string(&product.options).map_err(|error| Fault(error.to_string()))?;
        self.sql.execute(
            "INSERT INTO products (id, name, family, description, config_options, stock) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, family = excluded.family, description = excluded.description,
               config_options = excluded.config_options, stock = excluded.stock, retired_at = NULL",
            &[
                product.id.into(),
                (&product.name).into(),
                product.family.as_str().into(),
                (&product.description).into(),
                (&options).into(),
                product.stock.into(),
            ],
        )?;
        self.sql.execute("DELETE FROM product_prices WHERE product_id = $1", &[product.id.into()])?;
        for price in &product.prices {
            let setup_fee = price.setup_fee.as_deref().map_or(Ok(Minor::ZERO), amount).map_err(Fault)?;
            self.sql.execute(
                "INSERT INTO product_prices (product_id, currency, cycle, price, setup_fee) VALUES ($1, $2, $3, $4, $5)",
                &[
                    product.id.into(),
                    (&price.currency).into(),
                    (&price.cycle).into(),
                    amount(&price.price).map_err(Fault)?.0.into(),
                    setup_fee.0.into(),
                ],
            )?;
        }
        Ok(())
    }

    /// Fills a book that has nothing on sale with the default catalogue.
    pub(crate) fn seed(&mut self) -> Result<(), Fault> {
        if self.sql.first("SELECT 1 FROM products UNION ALL SELECT 1 FROM packages LIMIT 1", &[])?.is_some() {
            return Ok(());
        }
        let catalogue = Catalogue::parse(DEFAULT).map_err(|error| Fault(format!("default catalogue: {error}")))?;
        self.import(&catalogue)
    }
}

impl Family {
    fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Dedicated => "dedicated",
            Self::Webspace => "webspace",
            Self::Minecraft => "minecraft",
            Self::Vpn => "vpn",
            Self::Traffic => "traffic",
        }
    }
}

const PRODUCT_COLUMNS: &str = "id, name, family, description, config_options, stock";

pub(super) fn products(sql: &mut dyn Sql) -> Result<Vec<Product>, Fault> {
    let rows = sql.query(&format!("SELECT {PRODUCT_COLUMNS} FROM products WHERE retired_at IS NULL ORDER BY id"), &[])?;
    rows.iter().map(|row| read_product(sql, row)).collect()
}

pub(super) fn product(sql: &mut dyn Sql, id: i64) -> Result<Option<Arc<Product>>, Fault> {
    if let Some(known) = sql.hot().and_then(|hot| hot.product(id)) {
        return Ok(Some(known));
    }
    let query = format!("SELECT {PRODUCT_COLUMNS} FROM products WHERE retired_at IS NULL AND id = $1");
    let Some(row) = sql.first(&query, &[id.into()])? else { return Ok(None) };
    let product = Arc::new(read_product(sql, &row)?);
    if let Some(hot) = sql.hot() {
        hot.read_product(&product);
    }
    Ok(Some(product))
}

fn read_product(sql: &mut dyn Sql, row: &Row) -> Result<Product, Fault> {
    let id = row.int(0)?;
    let prices = sql.query(
        "SELECT currency, cycle, price, setup_fee FROM product_prices WHERE product_id = $1 ORDER BY currency, price",
        &[id.into()],
    )?;
    let price = |row: &Row| {
        Ok(Price { currency: row.text(0)?, cycle: row.text(1)?, price: Minor(row.int(2)?), setup_fee: Minor(row.int(3)?) })
    };
    Ok(Product {
        id,
        name: row.text(1)?,
        family: row.text(2)?,
        description: row.text(3)?,
        prices: prices.iter().map(price).collect::<Result<_, _>>()?,
        config_options: serde_json::from_str(&row.text(4)?)
            .map_err(|error| Fault(format!("config options of product {id}: {error}")))?,
        stock: row.opt_int(5)?.map(|stock| u32::try_from(stock).unwrap_or(0)),
    })
}

pub(super) fn take_stock(sql: &mut dyn Sql, product: i64, quantity: u32) -> Result<bool, Fault> {
    forget_product(sql, product);
    let taken = sql.execute(
        "UPDATE products SET stock = stock - $1 WHERE id = $2 AND (stock IS NULL OR stock >= $1)",
        &[quantity.into(), product.into()],
    )?;
    Ok(taken == 1)
}

pub(super) fn return_stock(sql: &mut dyn Sql, product: i64, quantity: u32) -> Result<(), Fault> {
    forget_product(sql, product);
    sql.execute("UPDATE products SET stock = stock + $1 WHERE id = $2", &[quantity.into(), product.into()])?;
    Ok(())
}

fn forget_product(sql: &mut dyn Sql, product: i64) {
    if let Some(hot) = sql.hot() {
        hot.forget_product(product);
    }
}

pub(super) fn packages(sql: &mut dyn Sql) -> Result<Vec<Package>, Fault> {
    let mut packages = Vec::new();
    for row in sql.query("SELECT name, rank FROM packages ORDER BY rank", &[])? {
        let name = row.text(0)?;
        let prices =
            sql.query("SELECT currency, price FROM package_prices WHERE package = $1 ORDER BY currency", &[(&name).into()])?;
        let prices = prices.iter().map(|row| Ok((row.text(0)?, Minor(row.int(1)?)))).collect::<Result<_, Fault>>()?;
        packages.push(Package { name, rank: row.number(1)?, prices });
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_that_makes_no_sense_is_refused_by_name() {
        let parse = |kind: &str, price: &str| {
            let text = format!(
                "[[product]]\nid = 1\nname = 'S'\nfamily = 'kvm'\nprices = [{{ cycle = 'monthly', currency = 'EUR', price = '9.90' }}]\n\
                 [[product.option]]\nname = 'ram'\ntype = '{kind}'\nchoices = [{{ value = '8', prices = {{ EUR = '{price}' }} }}]"
            );
            Catalogue::parse(&text).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(parse("select", "2.00"), Ok(()));
        assert!(parse("select", "-2.00").unwrap_err().contains("product 1: option ram"));
        assert!(parse("select", "2,00").unwrap_err().contains("not an amount"));
        assert!(parse("list", "2.00").unwrap_err().contains("`list`"));
    }
}
