<?php

// Stand-ins of what WISECP defines for its modules: the names and types that ours use, and no more. Its core is closed; see its
// developer documentation and the sample modules that it publishes.

declare(strict_types=1);

class Config
{
    public static function get(string $name): string
    {
        return "key of $name";
    }
}

class Crypt
{
    public static function encode(string $text, string $key): string
    {
        return base64_encode(strrev("$key|$text"));
    }

    /** @return string|false */
    public static function decode(string $text, string $key)
    {
        $plain = strrev((string) base64_decode($text, true));
        return strpos($plain, "$key|") === 0 ? substr($plain, strlen($key) + 1) : false;
    }
}

/** What both kinds of modules have. */
abstract class ModuleStandIn
{
    /** The module log. */
    public static string $written = '';
    /** @var string */
    public $_name = '';
    /** @var string */
    public $error = '';
    /** @var string */
    public $area_link = 'https://panel.example/service/1';
    /** @var mixed */
    public $lang = [];
    /** @var array<string, mixed> */
    public $config = [];
    /** @var mixed */
    public $order = [];
    /** @var mixed */
    public $user = [];
    /** @var mixed */
    public $val_of_requirements = [];
    /** @var mixed */
    public $val_of_conf_opt = [];

    /**
     * @param mixed $request
     * @param mixed $response
     * @param mixed $trace
     */
    public static function save_log(string $type, string $name, string $action, $request = '', $response = '', $trace = ''): void
    {
        self::$written .= print_r([$type, $name, $action, $request, $response, $trace], true);
    }

    public function clientArea_buttons_output(): string
    {
        return '<div>' . htmlspecialchars((string) json_encode($this->clientArea_buttons())) . '</div>';
    }

    public function adminArea_buttons_output(): string
    {
        return '<div>' . htmlspecialchars((string) json_encode($this->adminArea_buttons())) . '</div>';
    }

    /**
     * @param array<string, array<string, mixed>> $inputs
     * @return mixed
     */
    public function config_options_output(array $inputs, string $name)
    {
        foreach ($inputs as $key => $input) {
            // As the real one: values that a module gives as output are printed as they are.
            echo "<label>", is_string($input['name']) ? $input['name'] : '', "</label><span>", is_string($input['value'] ?? null) ? $input['value'] : '', "</span>";
        }
        return null;
    }

    /** @param array<string, mixed> $values */
    public function get_page(string $page, array $values): string
    {
        extract($values);
        ob_start();
        require dirname((string) (new ReflectionClass($this))->getFileName()) . "/pages/$page.php";
        return (string) ob_get_clean();
    }

    /** @param array<string, mixed> $config */
    public function save_config(array $config): void
    {
        $this->config = $config;
    }

    /** @return array<string, array<string, mixed>> */
    abstract public function clientArea_buttons();

    /** @return array<string, array<string, mixed>> */
    abstract public function adminArea_buttons();

    protected function loadLanguage(): void
    {
        /** @var array<string, string> $lang */
        $lang = require dirname((string) (new ReflectionClass($this))->getFileName()) . '/lang/en.php';
        $this->lang = $lang;
    }
}

abstract class ServerModule extends ModuleStandIn
{
    /** @var mixed */
    public $server = [];
    /** @var string */
    public $entity_id_name = 'vm_id';

    /**
     * @param mixed $server
     * @param mixed $options
     */
    public function __construct($server, $options = [])
    {
        $this->server = $server;
        $this->loadLanguage();
        $this->define_server_info($server);
    }

    /**
     * @param mixed $server
     * @return void
     */
    abstract protected function define_server_info($server = []);
}

abstract class ProductModule extends ModuleStandIn
{
    public function __construct()
    {
        $this->loadLanguage();
        /** @var array<string, mixed> $config */
        $config = require dirname((string) (new ReflectionClass($this))->getFileName()) . '/config.php';
        $this->config = $config;
    }
}
