<?php

// Stand-ins of what Clientexec defines for its server plug-ins: the names and types that ours uses, and no more.

declare(strict_types=1);

set_include_path(__DIR__ . PATH_SEPARATOR . get_include_path());

const CUSTOM_FIELDS_FOR_PACKAGE = 1;

function lang(string $text): string
{
    return $text;
}

class CE_Exception extends Exception
{
}

class CE_Lib
{
    public static string $written = '';

    /** @param string $text */
    public static function log(int $level, $text): void
    {
        self::$written .= "$level $text\n";
    }

    public static function getSessionHash(): string
    {
        return 'hash';
    }
}

class CE_User
{
    public bool $isAdmin = true;

    public function isAdmin(): bool
    {
        return $this->isAdmin;
    }
}

class Server
{
    /** @var array<string, string> */
    public static array $variables = [];

    /** @param int|string $id */
    public function __construct($id)
    {
    }

    /**
     * @param ?CE_User $user
     * @return array<string, string>
     */
    public function getAllServerPluginVariables($user, string $plugin): array
    {
        return self::$variables;
    }
}

class UserPackage
{
    /** @var array<int, array<string, mixed>> what the shop knows of its packages */
    public static array $packages = [];
    private int $id;

    /** @param int $id */
    public function __construct($id)
    {
        $this->id = $id;
    }

    public function getId(): int
    {
        return $this->id;
    }

    /** @return mixed */
    public function getCustomField(string $name, int $type = 0)
    {
        /** @var array<string, mixed> $fields */
        $fields = self::$packages[$this->id]['fields'] ?? [];
        return $fields[$name] ?? null;
    }

    /** @param mixed $value */
    public function setCustomField(string $name, $value, int $type = 0): void
    {
        /** @var array<string, mixed> $fields */
        $fields = self::$packages[$this->id]['fields'] ?? [];
        self::$packages[$this->id]['fields'] = [$name => $value] + $fields;
    }
}
