-- SQLite keeps to the types of columns from here on, as PostgreSQL does. What is stored stays as it is: the tables' text alone changes.
-- INT and not INTEGER, which as a primary key would mean the row's place.
{single}PRAGMA writable_schema = ON;
{single}UPDATE sqlite_schema SET sql = replace(sql, 'BIGINT', 'INT') || CASE WHEN sql LIKE '%) WITHOUT ROWID' THEN ', STRICT' ELSE ' STRICT' END WHERE type = 'table' AND name NOT LIKE 'sqlite_%';
{single}PRAGMA writable_schema = RESET;
-- So that other connections read the tables' text anew.
{single}CREATE TABLE strict_19 (id INT) STRICT;
{single}DROP TABLE strict_19;
