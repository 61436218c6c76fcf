<?php

declare(strict_types=1);

namespace Provisor;

/** Reads what came from outside, by what it should be: a value of another type is as good as none. */
final class Read
{
    /**
     * A text, number or truth value as text.
     *
     * @param array<mixed> $from
     */
    public static function text(array $from, string $name, string $default = ''): string
    {
        return self::optional($from, $name) ?? $default;
    }

    /**
     * The same, null where there is none.
     *
     * @param array<mixed> $from
     */
    public static function optional(array $from, string $name): ?string
    {
        $value = $from[$name] ?? null;
        if (is_bool($value)) {
            return $value ? 'true' : 'false';
        }
        return is_scalar($value) ? (string) $value : null;
    }

    /** @param array<mixed> $from */
    public static function flag(array $from, string $name): bool
    {
        return ($from[$name] ?? null) === true;
    }

    /**
     * A JSON object.
     *
     * @param array<mixed> $from
     * @return array<string, mixed>
     */
    public static function map(array $from, string $name): array
    {
        return self::named($from[$name] ?? null);
    }

    /**
     * A list of JSON objects.
     *
     * @param array<mixed> $from
     * @return list<array<string, mixed>>
     */
    public static function maps(array $from, string $name): array
    {
        $list = $from[$name] ?? null;
        return array_map([self::class, 'named'], is_array($list) ? array_values($list) : []);
    }

    /**
     * A list of texts.
     *
     * @param array<mixed> $from
     * @return list<string>
     */
    public static function texts(array $from, string $name): array
    {
        $list = $from[$name] ?? null;
        return array_map('strval', array_values(array_filter(is_array($list) ? $list : [], 'is_scalar')));
    }

    /**
     * A list of `{"name", "value"}` as one array.
     *
     * @param array<mixed> $from
     * @return array<string, string>
     */
    public static function properties(array $from, string $name): array
    {
        $properties = [];
        foreach (self::maps($from, $name) as $property) {
            $properties[self::text($property, 'name')] = self::text($property, 'value');
        }
        return $properties;
    }

    /**
     * Any value as what a JSON object becomes.
     *
     * @param mixed $value
     * @return array<string, mixed>
     */
    public static function named($value): array
    {
        $map = [];
        foreach (is_array($value) ? $value : [] as $name => $entry) {
            $map[(string) $name] = $entry;
        }
        return $map;
    }

    /** The text without control characters, as valid UTF-8, cut to so many characters. Needs no mbstring. */
    public static function shortened(string $text, int $lengthMax): string
    {
        if (preg_match('//u', $text) !== 1) {
            $text = (string) preg_replace('/[^\x20-\x7e]/', '?', $text);
        }
        $text = trim((string) preg_replace('/[\x00-\x1f\x7f]+/', ' ', $text));
        if (preg_match('/^.{' . $lengthMax . '}(?=.)/us', $text, $start) === 1) {
            return rtrim((string) preg_replace('/.$/us', '', $start[0])) . '…';
        }
        return $text;
    }
}
