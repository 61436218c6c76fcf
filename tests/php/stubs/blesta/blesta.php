<?php

// Stand-ins of what Blesta defines for its modules: the names and types that ours uses, and no more. Its core is closed; see its
// "Module Methods" documentation and the modules that it publishes.

declare(strict_types=1);

define('DS', DIRECTORY_SEPARATOR);

class Loader
{
    /** @var array<int, stdClass> the clients of the shop */
    public static array $clients = [];

    /** @param list<string> $components */
    public static function loadComponents(object $parent, array $components): void
    {
        $parent->Input = new Input(); // @phpstan-ignore-line
    }

    /** @param list<string> $models */
    public static function loadModels(object $parent, array $models): void
    {
        foreach ($models as $model) {
            $parent->$model = new $model(); // @phpstan-ignore-line
        }
    }

    /** @param list<string> $helpers */
    public static function loadHelpers(object $parent, array $helpers): void
    {
        foreach ($helpers as $helper) {
            $parent->view->$helper = new $helper(); // @phpstan-ignore-line
        }
    }
}

class Language
{
    /** @var array<string, string> */
    private static array $texts = [];

    public static function loadLang(string $file, ?string $language, string $folder): void
    {
        $lang = [];
        require $folder . ($language ?? 'en_us') . DS . "$file.php";
        /** @var array<string, string> $lang */
        self::$texts = $lang + self::$texts;
    }

    /** @return ?string */
    public static function _(string $key, bool $return = false)
    {
        if (!$return) {
            echo self::$texts[$key] ?? '';
        }
        return $return ? (self::$texts[$key] ?? '') : null;
    }
}

class Input
{
    /** @var array<string, array<string, string>>|false */
    private $errors = false;

    /** @param array<string, array<string, string>> $errors */
    public function setErrors(array $errors): void
    {
        $this->errors = $errors === [] ? false : $errors;
    }

    /** @return array<string, array<string, string>>|false */
    public function errors()
    {
        return $this->errors;
    }
}

class ModuleManager
{
    /** @return stdClass|false */
    public function getGroup(int $id)
    {
        return $id === 7 ? (object) ['add_order' => 'first', 'rows' => [(object) ['id' => 1]]] : false;
    }
}

class Clients
{
    /** @return stdClass|false */
    public function get(int $id, bool $withSettings = true)
    {
        return Loader::$clients[$id] ?? false;
    }
}

class ModuleField
{
    /** @var list<ModuleField> */
    public array $fields = [];
    public string $name;
    public string $type;
    public string $value;
    /** @var array<string> */
    public array $options;

    /** @param array<string> $options */
    public function __construct(string $type, string $name, string $value = '', array $options = [])
    {
        [$this->type, $this->name, $this->value, $this->options] = [$type, $name, $value, $options];
    }

    public function attach(ModuleField $field): void
    {
        $this->fields[] = $field;
    }
}

class ModuleFields
{
    /** @var list<ModuleField> */
    private array $fields = [];
    public string $html = '';

    public function setHtml(string $html): void
    {
        $this->html .= $html;
    }

    public function setField(ModuleField $field): void
    {
        $this->fields[] = $field;
    }

    /** @return array<string, ModuleField> by name, of all depths */
    public function all(): array
    {
        $all = [];
        foreach ($this->fields as $field) {
            foreach ($field->fields === [] ? [$field] : $field->fields as $input) {
                $all[$input->name] = $input;
            }
        }
        return $all;
    }

    public function label(string $name, ?string $for = null): ModuleField
    {
        return new ModuleField('label', $name);
    }

    /** @param array<string, string> $attributes */
    public function fieldText(string $name, ?string $value = null, array $attributes = []): ModuleField
    {
        return new ModuleField('text', $name, (string) $value);
    }

    /** @param array<string, string> $attributes */
    public function fieldPassword(string $name, array $attributes = []): ModuleField
    {
        return new ModuleField('password', $name);
    }

    public function fieldHidden(string $name, ?string $value = null): ModuleField
    {
        return new ModuleField('hidden', $name, (string) $value);
    }

    /**
     * @param array<string>         $options
     * @param array<string, string> $attributes
     */
    public function fieldSelect(string $name, array $options = [], ?string $selected = null, array $attributes = []): ModuleField
    {
        return new ModuleField('select', $name, (string) $selected, $options);
    }
}

class Html
{
    public function safe(string $text): string
    {
        return htmlspecialchars($text, ENT_QUOTES, 'UTF-8');
    }
}

class Form
{
    public function create(string $uri = ''): void
    {
        echo '<form method="post" action="' . $uri . '"><input type="hidden" name="_csrf_token" value="x">';
    }

    public function end(): void
    {
        echo '</form>';
    }

    public function label(string $text, string $for): void
    {
        echo '<label>' . htmlspecialchars($text) . '</label>';
    }

    /** @param mixed $value */
    public function fieldHidden(string $name, $value): void
    {
        echo "<input type=\"hidden\" name=\"$name\" value=\"" . htmlspecialchars(is_scalar($value) ? (string) $value : '') . '">';
    }

    /** @param array<string, string> $attributes */
    public function fieldText(string $name, string $value, array $attributes = []): void
    {
        echo "<input type=\"text\" name=\"$name\" value=\"" . htmlspecialchars($value) . '">';
    }

    /** @param array<string, string> $attributes */
    public function fieldPassword(string $name, array $attributes = []): void
    {
        echo "<input type=\"password\" name=\"$name\">";
    }

    /** @param array<string, string> $attributes */
    public function fieldSubmit(string $name, string $value, array $attributes = []): void
    {
        echo '<button>' . htmlspecialchars($value) . '</button>';
    }
}

class Widget
{
    public function clear(): void
    {
    }

    /** @param list<array<string, mixed>> $buttons */
    public function setLinkButtons(array $buttons): void
    {
    }

    /** @param array<string, string> $attributes */
    public function create(string $title, array $attributes = []): void
    {
        echo "<section><h1>$title</h1>";
    }

    public function end(): void
    {
        echo '</section>';
    }
}

class View
{
    public string $base_uri = '/';
    /** @var ?Form */
    public $Form;
    /** @var ?Html */
    public $Html;
    /** @var ?Widget */
    public $Widget;
    private string $name;
    private string $folder = '';
    /** @var array<string, mixed> */
    private array $values = [];

    public function __construct(string $name, string $theme)
    {
        $this->name = $name;
    }

    public function setDefaultView(string $folder): void
    {
        $this->folder = $folder;
    }

    /** @param mixed $value */
    public function set(string $name, $value): void
    {
        $this->values[$name] = $value;
    }

    public function fetch(): string
    {
        extract($this->values);
        ob_start();
        require dirname(__DIR__, 4) . DS . 'plugins' . DS . 'blesta' . DS . $this->folder . 'views' . DS . 'default' . DS . "{$this->name}.pdt";
        return (string) ob_get_clean();
    }
}

#[AllowDynamicProperties]
abstract class Module
{
    /** @var Input */
    public $Input;
    /** @var View */
    public $view;
    /** @var ModuleManager */
    public $ModuleManager;
    /** @var Clients */
    public $Clients;
    /** @var string */
    public $base_uri = '/admin/';
    /** What the module log shows. */
    public string $written = '';
    /** @var array<int, stdClass> the rows of the shop */
    public array $rows = [];
    private ?stdClass $row = null;

    /** @return void */
    public function loadConfig(string $file)
    {
        if (!is_array(json_decode((string) file_get_contents($file), true))) {
            throw new LogicException("$file is no JSON");
        }
    }

    /** @return ?stdClass */
    public function getModuleRow(?int $id = null)
    {
        return $id === null ? $this->row : ($this->rows[$id] ?? null);
    }

    /** @return list<stdClass> */
    public function getModuleRows(?int $group = null)
    {
        return array_values($this->rows);
    }

    public function setModuleRow(stdClass $row): void
    {
        $this->row = $row;
    }

    /**
     * @param string  $url
     * @param ?string $data
     * @param string  $direction
     * @param bool    $success
     * @return void
     */
    protected function log($url, $data = null, $direction = 'input', $success = false)
    {
        if (!in_array($direction, ['input', 'output'], true)) {
            throw new LogicException("no direction $direction");
        }
        $this->written .= "$url $direction " . ($success ? 'success' : 'error') . " $data\n";
    }
}
