<?php

declare(strict_types=1);

use Provisor\Gateway;
use Provisor\Problem;
use Provisor\Read;
use Provisor\Service;

require_once dirname(__DIR__, 2) . '/Servers/Provisor/load.php';

/** For products that are neither servers nor hosting: the gateway and its token are in the module's own settings. */
class Provisor extends ProductModule
{
    use Provisor_Calls;

    /** What stands in the form in place of the token, and leaves it as it is. */
    private const UNCHANGED = '*****';

    public function __construct()
    {
        $this->_name = __CLASS__;
        parent::__construct();
    }

    /** @return string */
    public function configuration()
    {
        return $this->get_page('configuration', [
            'm_name' => $this->_name,
            'area_link' => $this->area_link,
            'lang' => $this->lang,
            'settings' => ['token' => self::UNCHANGED] + $this->provisorSettings(),
        ]);
    }

    /**
     * Stores the gateway once it was seen to work.
     *
     * @return bool
     */
    public function controller_save()
    {
        $post = Read::named($_POST);
        $address = trim(Read::text($post, 'address'));
        $token = trim(Read::text($post, 'token'));
        $token = $token === self::UNCHANGED ? $this->provisorSettings()['token'] : $token;
        try {
            $isGood = (new Gateway($address, $token))->profiles() !== [];
            $message = $this->provisorText($isGood ? 'saved' : 'no_profile');
        } catch (Problem $problem) {
            [$isGood, $message] = [false, Service::plain($problem->staffText())];
        }
        if ($isGood) {
            $config = Read::named($this->config);
            $wait = (string) max(0, min(110, (int) Read::text($post, 'wait')));
            // WISECP keeps a module's settings in a file.
            $config['settings'] = ['address' => $address, 'token' => Crypt::encode($token, Config::get('crypt/system')), 'token_encoded' => true, 'wait' => $wait];
            $this->save_config($config);
        }
        echo json_encode(['status' => $isGood ? 'successful' : 'error', 'message' => $message], JSON_HEX_TAG | JSON_PARTIAL_OUTPUT_ON_ERROR);
        return $isGood;
    }

    /** @return array{address: string, token: string, wait: string} */
    protected function provisorSettings(): array
    {
        $settings = Read::map(Read::named($this->config), 'settings');
        $token = Read::text($settings, 'token');
        if ($token !== '' && Read::flag($settings, 'token_encoded')) {
            $decoded = Crypt::decode($token, Config::get('crypt/system'));
            $token = is_string($decoded) ? $decoded : '';
        }
        return ['address' => Read::text($settings, 'address'), 'token' => $token, 'wait' => Read::text($settings, 'wait')];
    }

    protected function provisorType(): string
    {
        return 'Product';
    }

    /**
     * What WISECP stores with the service.
     *
     * @param array<string, mixed> $made
     * @return array<string, mixed>
     */
    protected function provisorMade(array $made): array
    {
        return ['config' => ['id' => Read::text($made, 'remote_id')]];
    }
}
